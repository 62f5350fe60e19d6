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
{{ .Values.config | default (.Files.Get "mirror.yaml") }}
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
