#!/usr/bin/env bash
# A walk through the gateway. Each line after a $ can be repeated by hand while
# the gateway is up.
#
# DEMO_PORT, DEMO_API_PORT and DEMO_ADMIN_PORT choose other ports, DEMO_DIR a
# folder that stays; DEMO_ONCE=1 stops at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$(realpath "${CADDY:-bin/caddy}") caddy=$(printf %q "$binary")
export DEMO_PORT=${DEMO_PORT:-8080} DEMO_API_PORT=${DEMO_API_PORT:-8081} DEMO_ADMIN_PORT=${DEMO_ADMIN_PORT:-2019}
gateway=http://localhost:$DEMO_PORT admin=localhost:$DEMO_ADMIN_PORT

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] || say() { printf '\n%s\n' "$*"; }

# run COMMAND WANTED shows a command and what it prints, which must have WANTED in
# it.
run() {
	printf '$ %s\n' "$1"
	answer=$(eval "$1")
	printf '%s\n' "$answer"
	if [[ $answer != *"$2"* ]]; then
		echo "demo: this is not what it should be, it lacks $2; the log is $DEMO_DIR/caddy.log" >&2
		keep=1
		exit 1
	fi
}
# field NAME: the string of that name in the last answer.
field() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" <<<"$answer" | head -n 1; }

for port in "$DEMO_PORT" "$DEMO_API_PORT" "$DEMO_ADMIN_PORT"; do
	if (exec 3<>"/dev/tcp/localhost/$port") 2>/dev/null; then
		echo "demo: port $port is in use; choose others with DEMO_PORT, DEMO_API_PORT and DEMO_ADMIN_PORT" >&2
		exit 1
	fi
done

keep=${DEMO_DIR:-}
export DEMO_DIR=${DEMO_DIR:-$(mktemp -d)}
mkdir -p "$DEMO_DIR"
export XDG_DATA_HOME=$DEMO_DIR XDG_CONFIG_HOME=$DEMO_DIR
server=
end() {
	[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null || true
	[ -n "$keep" ] || rm -rf "$DEMO_DIR"
}
trap end EXIT

say "1. A gateway at $gateway, before an API at localhost:$DEMO_API_PORT (demo/Caddyfile; log and keys are in $DEMO_DIR)"
"$binary" run --config demo/Caddyfile >"$DEMO_DIR/caddy.log" 2>&1 &
server=$!
for ((i = 0; ; i++)); do
	curl -fs "$admin/api_keys/ready" >/dev/null && break
	if ((i == 600)) || ! kill -0 "$server" 2>/dev/null; then
		echo "demo: Caddy did not start:" >&2
		tail -n 5 "$DEMO_DIR/caddy.log" >&2
		exit 1
	fi
	sleep 0.1
done
run "curl -s $admin/api_keys/ready" '"ready":true'

say "2. Without a key the API is out of reach"
run "curl -s $gateway/hello" '"code":401'

say "3. The first key comes from the operator, on the command line"
run "$caddy api-keys create --address $admin --organization acme --user alice --name first --scope read-write --json" '"key": "ak_'
token=$(field key)

say "4. With it, the API itself issues a key: POST /v1/api-keys, the token is shown once"
run "curl -s $gateway/v1/api-keys -H 'Authorization: Bearer $token' -H 'Content-Type: application/json' -d '{\"name\":\"reports\"}'" '"code":200'
key=$(field key) id=$(field id)

say "5. The new key opens the API, which learns who is calling and does not see the key"
run "curl -s $gateway/hello -H 'Authorization: Bearer $key'" "by key $id, user alice of acme, scope read, Authorization: []"

say "6. Its scope is read: writing is refused"
run "curl -s -X POST $gateway/hello -H 'Authorization: Bearer $key'" '"code":403'

say "7. When, from where and with what was it last used?"
run "curl -s $gateway/v1/api-keys/$id -H 'Authorization: Bearer $token'" '"lastUsedUserAgent":"curl'
run "$caddy api-keys list --address $admin --organization acme" "$id"

say "8. Prometheus reads it from Caddy's own metrics"
run "curl -s $admin/metrics | grep -E '^caddy_api_keys_(verdicts|changes|key_requests)_total' | grep -v ' 0\$'" "key_id=\"$id\""

say "9. A revoked key is refused from the next request on"
run "curl -s -X DELETE $gateway/v1/api-keys/$id -H 'Authorization: Bearer $token'" '"revokedAt"'
run "curl -s $gateway/hello -H 'Authorization: Bearer $key'" '"code":401'

if [ "${DEMO_ONCE:-}" = 1 ]; then
	say "The demo is complete."
	exit 0
fi
say "The gateway stays up: try it with the first key, stop it with Ctrl-C."
echo "  export TOKEN=$token"
echo "  curl $gateway/anything -H \"Authorization: Bearer \$TOKEN\""
wait "$server"
