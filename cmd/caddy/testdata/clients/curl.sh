#!/bin/sh
# $1 is the address of the API, $2 the API token.
curl -s --request POST \
  --url "$1/v1/api-keys" \
  --header "Authorization: Bearer $2" \
  --header 'Content-Type: application/json' \
  --data '{}'
curl -s --request POST \
  --url "$1/v1/api-keys" \
  --header "Authorization: Bearer $2" \
  --header 'Content-Type: application/json' \
  --data '{"name":"x"}'
