#!/usr/bin/env bash
# Runs a command of corpusmill on Dataflow and waits for it. Any of Dataflow's options can be added,
# and goes before what is set here.
#
#   PROJECT=... REGION=... BUCKET=... [IMAGE=...] [SERVICE_ACCOUNT=...] \
#       deploy/dataflow/launch.sh count --tokens gs://BUCKET/tokens --output gs://BUCKET/counts
set -euo pipefail
: "${PROJECT:?the project that pays}" "${REGION:?where the bucket is}" "${BUCKET:?for temporary files}"
exec corpusmill "${1:?a command of corpusmill and its options}" \
    --runner DataflowRunner \
    --project "$PROJECT" \
    --region "$REGION" \
    --temp_location "gs://$BUCKET/dataflow" \
    --machine_type n2-standard-4 \
    --max_num_workers 20 \
    ${IMAGE:+--sdk_container_image "$IMAGE"} \
    ${SERVICE_ACCOUNT:+--service_account_email "$SERVICE_ACCOUNT"} \
    "${@:2}"
