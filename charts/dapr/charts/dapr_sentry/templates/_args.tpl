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
{{- with .Values.jwt }}
{{- if .enabled }}
- --jwt-enabled=true
{{- range $flag, $value := dict "jwt-key-filename" .keyFilename "jwks-filename" .jwksFilename "jwt-issuer" .issuer "jwt-signing-algorithm" .signingAlgorithm "jwt-key-id" .keyID }}
{{- with $value }}
- {{ printf "--%s=%s" $flag (include "dapr.text" .) | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.oidc }}
{{- if .enabled }}
- --oidc-enabled=true
- --oidc-server-listen-address=0.0.0.0
{{- range $flag, $value := dict "oidc-jwks-uri" .jwksURI "oidc-path-prefix" .pathPrefix "oidc-allowed-hosts" (join "," (.allowedHosts | default list)) "oidc-server-tls-cert-file" .tls.certFile "oidc-server-tls-key-file" .tls.keyFile }}
{{- with $value }}
- {{ printf "--%s=%s" $flag (include "dapr.text" .) | quote }}
{{- end }}
{{- end }}
- --oidc-server-tls-enabled={{ .tls.enabled }}
{{- end }}
{{- end }}
{{- range .Values.extraArgs }}
- {{ include "dapr.text" . | quote }}
{{- end }}
{{- end -}}
