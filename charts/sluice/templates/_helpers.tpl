{{- define "sluice.fullname" -}}
{{- if contains "sluice" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-sluice" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "sluice.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "sluice.fullname" .) }}
{{- end }}

{{- define "sluice.externalMetrics" -}}
{{ include "sluice.fullname" . }}-metrics-api
{{- end }}

{{- define "sluice.selector" -}}
app.kubernetes.io/name: sluice-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "sluice.labels" -}}
{{ include "sluice.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: sluice
app.kubernetes.io/component: operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "sluice.installKeySecret" -}}
{{ .Values.installKey.existingSecret | default (printf "%s-install-key" (include "sluice.fullname" .)) }}
{{- end }}

{{- /* The settings file: the connections of the values with Secret names turned into the files they are mounted at. */ -}}
{{- define "sluice.settings" -}}
instanceId: {{ required "instanceId is required: a short name of this installation, unique on its Kafka and Redis" .Values.instanceId | quote }}
deletionDeadlineSeconds: {{ .Values.deletionDeadlineSeconds }}
worker:
  image: {{ printf "%s:%s" .Values.worker.image.repository (.Values.worker.image.tag | default .Chart.AppVersion) | quote }}
  imagePullPolicy: {{ .Values.worker.image.pullPolicy }}
  imagePullSecrets: {{ .Values.worker.imagePullSecrets | toJson }}
  terminationGracePeriodSeconds: {{ .Values.worker.terminationGracePeriodSeconds }}
{{- with .Values.lagMonitors }}
lagMonitors: {{- toYaml . | nindent 0 }}
{{- end }}
connections:
{{- range $kind := list "kafka" "redis" }}
  {{ $kind }}:
  {{- range $connection := index $.Values.connections $kind }}
  - {{ include "sluice.connection" (dict "kind" $kind "connection" $connection) | nindent 4 | trim }}
  {{- else }} []
  {{- end }}
{{- end }}
{{- end }}

{{- define "sluice.connection" -}}
{{- $folder := printf "/etc/sluice/%s-%s" .kind .connection.name -}}
{{- omit .connection "tls" "admin" | toYaml }}
{{- with .connection.tls }}
tls: {{ if .secretName }}{caFile: {{ $folder }}-ca/ca.crt}{{ else }}{}{{ end }}
{{- end }}
{{- if and (hasKey .connection "tls") (not .connection.tls) }}
tls: {}
{{- end }}
{{- with .connection.admin }}
admin:
  usernameFile: {{ $folder }}-admin/username
  passwordFile: {{ $folder }}-admin/password
  {{- with .mechanism }}
  mechanism: {{ . }}
  {{- end }}
{{- end }}
{{- end }}
