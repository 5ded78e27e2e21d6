{{- define "aegra.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "aegra.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "aegra.labels" -}}
{{ include "aegra.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "aegra.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "aegra.name" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "aegra.image" -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}

{{- /* What every container of the chart has. */ -}}
{{- define "aegra.container" -}}
image: {{ include "aegra.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
envFrom:
  - secretRef:
      name: {{ .Values.existingSecret | quote }}
env:
  {{- range $name, $value := .Values.env }}
  - name: {{ $name }}
    value: {{ $value | quote }}
  {{- end }}
  - name: LOG_FORMAT
    value: json
  - name: AEGRA_TRACES_SPOOL
    value: {{ .Values.traces.spool | quote }}
  - name: N_JOBS_PER_WORKER
    value: {{ .Values.worker.concurrency | quote }}
  - name: BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS
    value: {{ .Values.worker.graceSeconds | quote }}
volumeMounts:
  - { name: data, mountPath: /data }
  - { name: tmp, mountPath: /tmp }
{{- end -}}

{{- /* What every pod of the chart has, beside its containers. */ -}}
{{- define "aegra.pod" -}}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - name: tmp
    emptyDir: {}
  - name: data
    {{- if .Values.traces.existingClaim }}
    persistentVolumeClaim:
      claimName: {{ .Values.traces.existingClaim | quote }}
    {{- else }}
    emptyDir:
      sizeLimit: {{ .Values.traces.sizeLimit }}
    {{- end }}
{{- end -}}

{{- /* Asked by the kubelet: /live whether the process is alive, /ready whether it should get work. */ -}}
{{- define "aegra.probes" -}}
ports:
  - name: http
    containerPort: 2024
startupProbe:
  httpGet: { path: /live, port: http }
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: { path: /live, port: http }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: { path: /ready, port: http }
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
{{- end -}}
