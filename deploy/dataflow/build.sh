#!/usr/bin/env bash
# Builds the image with Cloud Build and the Flex Template from it. Needs gcloud, logged in.
#
#   [EXTRAS=gcp,train] deploy/dataflow/build.sh PROJECT REGION BUCKET [TAG]
set -euo pipefail
if [ $# -lt 3 ]; then
    sed -n '2,4s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
cd "$(dirname "$0")/../.."
project=$1 region=$2 bucket=$3 tag=${4:-$(git rev-parse --short HEAD)}
image=$region-docker.pkg.dev/$project/corpusmill/corpusmill:$tag

gcloud artifacts repositories describe corpusmill --project "$project" --location "$region" \
    >/dev/null 2>&1 || gcloud artifacts repositories create corpusmill --project "$project" \
    --location "$region" --repository-format docker
config=$(mktemp)
trap 'rm -f "$config"' EXIT
cat >"$config" <<END
steps:
  - name: gcr.io/cloud-builders/docker
    args: [build, --file, deploy/dataflow/Dockerfile, --build-arg, "EXTRAS=${EXTRAS:-gcp}", --tag, $image, .]
images: [$image]
timeout: 3600s
END
gcloud builds submit --project "$project" --region "$region" --config "$config" .
gcloud dataflow flex-template build "gs://$bucket/corpusmill/$tag.json" --project "$project" \
    --image "$image" --sdk-language PYTHON --metadata-file deploy/dataflow/metadata.json
echo "image    $image"
echo "template gs://$bucket/corpusmill/$tag.json"
