{{/*
The chart has no manifests of its own: `base` and `components` are symbolic links
to the folders of kustomize, and the templates change what values change. So the
chart and the overlays cannot differ, which k8s/check verifies.
*/}}

{{/* The labels that kustomize adds, and Helm's own. */}}
{{- define "tidemark.labels" -}}
app.kubernetes.io/part-of: tidemark
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Prints a manifest with namespace and labels: list of the root and the manifest. */}}
{{- define "tidemark.print" -}}
{{- $root := index . 0 }}
{{- $manifest := index . 1 }}
{{- $_ := set $manifest.metadata "namespace" $root.Release.Namespace }}
{{- $labels := merge (dict) (default dict $manifest.metadata.labels) (include "tidemark.labels" $root | fromYaml) }}
{{- $_ := set $manifest.metadata "labels" $labels }}
{{- toYaml $manifest }}
{{- end }}

{{/* Prints a file unchanged but for namespace and labels: list of the root and its path. */}}
{{- define "tidemark.file" -}}
{{- $root := index . 0 }}
{{- range splitList "\n---\n" ($root.Files.Get (index . 1)) }}
---
{{ include "tidemark.print" (list $root (fromYaml .)) }}
{{- end }}
{{- end }}
