#!/bin/sh
# Prints the alerts of deploy/prometheus/alerts.yml as a PrometheusRule.
#   deploy/kubernetes/prometheus-rule.sh | kubectl apply -n registry-mirror -f -
set -eu
cat <<EOF
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: registry-mirror
  labels: {app.kubernetes.io/name: registry-mirror}
spec:
EOF
sed 's/^/  /' "$(dirname "$0")/../prometheus/alerts.yml"
