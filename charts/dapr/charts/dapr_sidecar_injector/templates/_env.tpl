{{/* The environment is how the injector is told what to inject. */}}
{{- define "dapr.injector.env" -}}
{{- $global := .Values.global -}}
- name: DAPR_TRUST_ANCHORS_FILE
  value: /var/run/secrets/dapr.io/tls/ca.crt
- name: DAPR_CONTROL_PLANE_TRUST_DOMAIN
  value: {{ $global.mtls.controlPlaneTrustDomain | quote }}
- name: DAPR_SENTRY_ADDRESS
  value: {{ include "dapr.sentryAddress" . | quote }}
{{- include "dapr.extraEnv" . }}
{{- include "dapr.injector.variable" (list "KUBE_CLUSTER_DOMAIN" .Values.kubeClusterDomain) }}
- name: SIDECAR_IMAGE
  value: {{ include "dapr.image" (dict "ctx" . "name" .Values.image.name) | quote }}
- name: SIDECAR_IMAGE_PULL_POLICY
  value: {{ .Values.sidecarImagePullPolicy | quote }}
- name: SIDECAR_RUN_AS_NON_ROOT
  value: {{ .Values.sidecarRunAsNonRoot | quote }}
{{- if gt (int64 .Values.sidecarRunAsUser) 0 }}
- name: SIDECAR_RUN_AS_USER
  value: {{ int64 .Values.sidecarRunAsUser | quote }}
{{- end }}
{{- if gt (int64 .Values.sidecarRunAsGroup) 0 }}
- name: SIDECAR_RUN_AS_GROUP
  value: {{ int64 .Values.sidecarRunAsGroup | quote }}
{{- end }}
- name: ENABLE_K8S_DOWNWARD_APIS
  value: {{ .Values.enableK8sDownwardAPIs | quote }}
- name: SIDECAR_DROP_ALL_CAPABILITIES
  value: {{ .Values.sidecarDropALLCapabilities | quote }}
{{- include "dapr.injector.variable" (list "SIDECAR_SECCOMP_PROFILE_TYPE" .Values.sidecarSeccompProfileType) }}
- name: SIDECAR_READ_ONLY_ROOT_FILESYSTEM
  value: {{ .Values.sidecarReadOnlyRootFilesystem | quote }}
- name: NATIVE_SIDECAR_ENABLED
  value: {{ .Values.nativeSidecar | quote }}
{{- if .Values.strict }}
- name: STRICT_ANNOTATIONS
  value: "true"
{{- end }}
{{- if $global.trustDistribution.enabled }}
- name: TRUST_DISTRIBUTION_ENABLED
  value: "true"
{{- end }}
{{ include "dapr.namespaceEnv" . }}
{{- with .Values.ignoreEntrypointTolerations }}
- name: IGNORE_ENTRYPOINT_TOLERATIONS
  value: {{ include "dapr.text" . | quote }}
{{- end }}
- name: ACTORS_ENABLED
  value: {{ $global.actors.enabled | quote }}
- name: ACTORS_SERVICE_NAME
  value: {{ $global.actors.serviceName | quote }}
- name: ACTORS_SERVICE_ADDRESS
  value: {{ include "dapr.injector.actorsAddress" . | quote }}
{{- include "dapr.injector.variable" (list "ALLOWED_SERVICE_ACCOUNTS" .Values.allowedServiceAccounts) }}
{{- include "dapr.injector.variable" (list "ALLOWED_SERVICE_ACCOUNTS_PREFIX_NAMES" .Values.allowedServiceAccountsPrefixNames) }}
{{- end -}}

{{/* A variable that is left out while it is empty: [name, value]. */}}
{{- define "dapr.injector.variable" -}}
{{- with index . 1 }}
- name: {{ index $ 0 }}
  value: {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "dapr.injector.actorsAddress" -}}
{{- $known := dict "placement" "dapr-placement-server:50005" "scheduler" "dapr-scheduler-server:50006" -}}
{{- $name := .Values.global.actors.serviceName -}}
{{- if not (hasKey $known $name) -}}
{{- fail (printf "global.actors.serviceName=%s: expected placement or scheduler" $name) -}}
{{- end -}}
{{- get $known $name -}}
{{- end -}}
