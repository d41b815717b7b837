#!/usr/bin/env bash
# Runs a command of corpusmill on Dataflow and waits for it. Says again what it needs where that is
# missing.
#
#   PROJECT=... REGION=... BUCKET=... [IMAGE=...] [WORKERS=20] [MACHINE=n2-standard-4] \
#       deploy/dataflow/launch.sh count --input gs://BUCKET/tokens --output gs://BUCKET/counts
set -euo pipefail
: "${PROJECT:?the project that pays}" "${REGION:?where the bucket is}" "${BUCKET:?for temporary files}"
exec corpusmill "$@" \
    --runner DataflowRunner \
    --project "$PROJECT" \
    --region "$REGION" \
    --temp_location "gs://$BUCKET/dataflow" \
    --machine_type "${MACHINE:-n2-standard-4}" \
    --max_num_workers "${WORKERS:-20}" \
    ${IMAGE:+--sdk_container_image "$IMAGE"} \
    ${SERVICE_ACCOUNT:+--service_account_email "$SERVICE_ACCOUNT"}
