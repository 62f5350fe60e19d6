{{- define "registry-mirror.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}{{ end -}}
{{- end }}

{{- define "registry-mirror.chosen" -}}
app.kubernetes.io/name: registry-mirror
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "registry-mirror.labels" -}}
{{ include "registry-mirror.chosen" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end }}

{{- define "registry-mirror.config" -}}
{{- if .Values.config }}{{ .Values.config }}
{{- else if .Values.fleet.enabled }}{{ include "registry-mirror.fleet" . }}
{{- else }}{{ .Files.Get "mirror.yaml" }}{{ end }}
{{- end }}

{{- define "registry-mirror.peers" -}}
{{ include "registry-mirror.name" . }}-peers
{{- end }}

{{- define "registry-mirror.fleet" -}}
# The configuration of each mirror of the fleet. What differs is in FLEET_URL.

listen: 0.0.0.0:5000
admin: 0.0.0.0:5001

storage:
  path: /var/lib/registry-mirror
  max_size: {{ .Values.fleet.maxSize }}
  {{- with .Values.fleet.s3 }}
  {{- if .bucket }}
  s3:
    bucket: {{ .bucket | quote }}
    region: {{ .region | quote }}
    {{- with .endpoint }}
    endpoint: {{ . | quote }}
    {{- end }}
    {{- with .prefix }}
    prefix: {{ . | quote }}
    {{- end }}
    {{- with .accessKeyId }}
    access_key_id: {{ . | quote }}
    secret_access_key_file: /run/secrets/fleet/s3
    {{- end }}
  {{- end }}
  {{- end }}

tags:
  store: {{ required "fleet.redis: write which Redis the mirrors share, such as redis://redis.default.svc:6379/0" .Values.fleet.redis | quote }}
  {{- if .Values.fleet.redisPassword }}
  password_file: /run/secrets/fleet/redis
  {{- end }}

fleet:
  listen: 0.0.0.0:5003
  url_env: FLEET_URL
  secret_file: /run/secrets/fleet/secret
  nodes: dns://{{ include "registry-mirror.peers" . }}.{{ .Release.Namespace }}.svc:5003

registries:
  docker.io:
    # A login of the mirror's own: the key `hub` of the Secret {{ .Values.loginsSecret }}.
#    credentials: {username: me, password_file: /run/secrets/registry-mirror/hub}
{{- end }}

{{- define "registry-mirror.image" -}}
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{- define "registry-mirror.url" -}}
{{- if .Values.nodes.url }}{{ .Values.nodes.url }}
{{- else if eq .Values.kind "DaemonSet" }}http://127.0.0.1:5000
{{- else if eq .Values.service.type "NodePort" }}http://127.0.0.1:{{ .Values.service.nodePort }}
{{- else }}{{ fail "nodes.url: write how nodes reach the mirror, such as http://10.0.0.7:5000; service.type is not NodePort" }}
{{- end }}
{{- end }}
