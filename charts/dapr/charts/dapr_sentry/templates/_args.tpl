{{- define "dapr.sentry.args" -}}
{{- $files := .Values.global.issuerFilenames | default dict -}}
- --mode
- {{ .Values.mode | quote }}
- --log-level
- {{ .Values.logLevel | quote }}
{{ include "dapr.logAndMetricsArgs" . | trim }}
- --trust-domain
- {{ .Values.global.mtls.controlPlaneTrustDomain | quote }}
- --ca-renewal-enabled={{ .Values.ca.renewal }}
- --ca-ttl
- {{ include "dapr.text" .Values.ca.ttl | quote }}
- --ca-renewal-threshold
- {{ include "dapr.text" .Values.ca.renewalThreshold | quote }}
- --trust-anchor-propagation-grace
- {{ include "dapr.text" .Values.ca.propagationGrace | quote }}
{{- with $files.ca }}
- --issuer-ca-filename
- {{ . | quote }}
{{- end }}
{{- with $files.cert }}
- --issuer-certificate-filename
- {{ . | quote }}
{{- end }}
{{- with $files.key }}
- --issuer-key-filename
- {{ . | quote }}
{{- end }}
{{- range .Values.extraArgs }}
- {{ include "dapr.text" . | quote }}
{{- end }}
{{- end -}}
