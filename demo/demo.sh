#!/usr/bin/env bash
# A walk through the gateway. Each line after a $ can be repeated by hand.
# DEMO_PORT, DEMO_API_PORT and DEMO_ADMIN_PORT choose other ports; DEMO_ONCE=1
# stops at the end instead of staying up.
set -euo pipefail
cd "$(dirname "$0")/.."
caddy=${CADDY:-bin/caddy}
export DEMO_PORT=${DEMO_PORT:-8080} DEMO_API_PORT=${DEMO_API_PORT:-8081} DEMO_ADMIN_PORT=${DEMO_ADMIN_PORT:-2019}
export DEMO_DIR=${DEMO_DIR:-$(mktemp -d)}
gateway=http://localhost:$DEMO_PORT admin=localhost:$DEMO_ADMIN_PORT

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] || say() { printf '\n%s\n' "$*"; }
show() { printf '$ %s\n' "$*"; }
# field NAME < JSON: the first string of that name.
field() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" | head -n 1; }

for port in "$DEMO_PORT" "$DEMO_API_PORT" "$DEMO_ADMIN_PORT"; do
	if (exec 3<>"/dev/tcp/localhost/$port") 2>/dev/null; then
		echo "demo: port $port is in use; choose others with DEMO_PORT, DEMO_API_PORT and DEMO_ADMIN_PORT" >&2
		exit 1
	fi
done

say "1. A gateway at $gateway, before an API at localhost:$DEMO_API_PORT (demo/Caddyfile; log and keys in $DEMO_DIR)"
show "$caddy run --config demo/Caddyfile"
"$caddy" run --config demo/Caddyfile >"$DEMO_DIR/caddy.log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null || true' EXIT
for ((i = 0; ; i++)); do
	curl -fs "$admin/api_keys/ready" >/dev/null && break
	if ((i == 100)) || ! kill -0 "$server" 2>/dev/null; then
		echo "demo: Caddy did not start; its log is $DEMO_DIR/caddy.log:" >&2
		tail -n 5 "$DEMO_DIR/caddy.log" >&2
		exit 1
	fi
	sleep 0.1
done

say "2. Without a key the API is out of reach"
show "curl $gateway/hello"
curl -s "$gateway/hello"; echo

say "3. The first key comes from the operator, on the command line"
create=("$caddy" api-keys create --address "$admin" --organization acme --user alice --name first --scope read-write)
show "${create[*]}"
first=$("${create[@]}" --json)
token=$(field key <<<"$first")
printf '%s\n' "$first"

say "4. With it, the API itself issues a key: POST /v1/api-keys, the token is shown once"
show "curl $gateway/v1/api-keys -H 'Authorization: Bearer $token' -H 'Content-Type: application/json' -d '{\"name\":\"reports\"}'"
issued=$(curl -fs "$gateway/v1/api-keys" -H "Authorization: Bearer $token" -H 'Content-Type: application/json' -d '{"name":"reports"}')
printf '%s\n' "$issued"
key=$(field key <<<"$issued") id=$(field id <<<"$issued")

say "5. The new key opens the API, which learns who is calling and does not see the key"
show "curl $gateway/hello -H 'Authorization: Bearer $key'"
curl -fs "$gateway/hello" -H "Authorization: Bearer $key"

say "6. Its scope is read: writing is refused"
show "curl -X POST $gateway/hello -H 'Authorization: Bearer $key'"
curl -s -X POST "$gateway/hello" -H "Authorization: Bearer $key"; echo

say "7. When, from where and with what was it last used?"
show "curl $gateway/v1/api-keys/$id -H 'Authorization: Bearer $token'"
curl -fs "$gateway/v1/api-keys/$id" -H "Authorization: Bearer $token"; echo
show "$caddy api-keys list --address $admin --organization acme"
"$caddy" api-keys list --address "$admin" --organization acme

say "8. Prometheus reads it from Caddy's own metrics"
show "curl $admin/metrics | grep caddy_api_keys_"
curl -fs "$admin/metrics" | grep -E '^caddy_api_keys_(verdicts_total|key_requests_total|keys|changes_total)' | grep -v ' 0$'

say "9. A revoked key is refused from the next request on"
show "curl -X DELETE $gateway/v1/api-keys/$id -H 'Authorization: Bearer $token'"
curl -fs -X DELETE "$gateway/v1/api-keys/$id" -H "Authorization: Bearer $token"; echo
show "curl $gateway/hello -H 'Authorization: Bearer $key'"
curl -s "$gateway/hello" -H "Authorization: Bearer $key"; echo

if [ "${DEMO_ONCE:-}" = 1 ]; then
	say "The demo is complete."
	exit 0
fi
say "The gateway stays up: try it with the first key, stop it with Ctrl-C."
echo "  export TOKEN=$token"
echo "  curl $gateway/anything -H \"Authorization: Bearer \$TOKEN\""
wait "$server"
