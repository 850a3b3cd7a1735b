{{- /* Names, labels and images that several templates share. */ -}}

{{- define "siem.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "siem.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "siem.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The full name with a suffix, at most 63 characters: call with (list . "suffix"). */ -}}
{{- define "siem.suffixed" -}}
{{- $suffix := index . 1 -}}
{{- printf "%s-%s" (include "siem.fullname" (index . 0) | trunc (int (sub 62 (len $suffix))) | trimSuffix "-") $suffix -}}
{{- end -}}

{{- /* Cluster-scoped objects carry the namespace in their names, so that two releases of one name do not collide. */ -}}
{{- define "siem.clusterName" -}}
{{- printf "%s-%s" (include "siem.fullname" .) .Release.Namespace -}}
{{- end -}}

{{- define "siem.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "siem.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "siem.selectorLabels" -}}
app.kubernetes.io/name: {{ include "siem.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- /* Never the operator's own value of managed-by: by that it finds what its agents own. */ -}}
{{- define "siem.labels" -}}
{{- $own := dict "app.kubernetes.io/name" (include "siem.name" .) "app.kubernetes.io/instance" .Release.Name "app.kubernetes.io/version" .Chart.AppVersion "app.kubernetes.io/part-of" "siem-agent-operator" "app.kubernetes.io/managed-by" .Release.Service "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- toYaml (merge $own .Values.commonLabels) -}}
{{- end -}}

{{- /* name, labels, annotations and namespace of an object: call with (dict "root" . "name" … "labels" … "annotations" … "namespace" …); "-" in place of a namespace leaves it out. */ -}}
{{- define "siem.metadata" -}}
{{- $labels := merge (include "siem.labels" .root | fromYaml) (default dict .labels) -}}
{{- $annotations := merge dict (default dict .annotations) .root.Values.commonAnnotations -}}
{{- $namespace := default .root.Release.Namespace .namespace -}}
name: {{ .name }}
{{- if ne $namespace "-" }}
namespace: {{ $namespace }}
{{- end }}
labels:
  {{- toYaml $labels | nindent 2 }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* registry/repository: call with (dict "root" . "image" …). */ -}}
{{- define "siem.repository" -}}
{{- $registry := default .image.registry .root.Values.global.imageRegistry -}}
{{- $name := .image.repository -}}
{{- with $registry -}}{{- $name = printf "%s/%s" (trimSuffix "/" .) $name -}}{{- end -}}
{{- $name -}}
{{- end -}}

{{- /* registry/repository[:tag][@digest]: call with (dict "root" . "image" …). */ -}}
{{- define "siem.image" -}}
{{- $name := include "siem.repository" . -}}
{{- $name = printf "%s:%s" $name (default .root.Chart.AppVersion .image.tag) -}}
{{- with .image.digest -}}{{- $name = printf "%s@%s" $name . -}}{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "siem.imagePullSecrets" -}}
{{- with concat .Values.global.imagePullSecrets .Values.imagePullSecrets | uniq -}}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{- /* Text where an object of the Prometheus Operator is to be rendered: call with (dict "root" . "kind" …). */ -}}
{{- define "siem.monitored" -}}
{{- $mode := .root.Values.monitoring.renderMode -}}
{{- $api := printf "monitoring.coreos.com/v1/%s" .kind -}}
{{- if or (eq $mode "alwaysRender") (.root.Capabilities.APIVersions.Has $api) -}}
yes
{{- else if eq $mode "failIfMissing" -}}
{{- fail (printf "monitoring.renderMode is failIfMissing and the cluster has no %s: install the Prometheus Operator, or set monitoring.renderMode to skipIfMissing or alwaysRender" $api) -}}
{{- end -}}
{{- end -}}

{{- /* The rules of one document of files/rbac.yaml, with their reasons: call with (dict "root" . "kind" …). */ -}}
{{- define "siem.rules" -}}
{{- $kind := .kind -}}
{{- $suffix := default "" .suffix -}}
{{- range regexSplit "(?m)^---\n" (.root.Files.Get (default "files/rbac.yaml" .file)) -1 -}}
{{- if and (regexMatch (printf "(?m)^kind: %s$" $kind) .) (regexMatch (printf "(?m)^  name: \\S*%s$" $suffix) .) -}}
rules:
{{ regexReplaceAll "(?s)^.*\nrules:\n" . "" | trimSuffix "\n" }}
{{- end -}}
{{- end -}}
{{- end -}}
