package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/child"
)

// upstreamAnswer is what the service behind every gateway says.
const upstreamAnswer = `{"ok":true,"message":"hello from the upstream"}`

// nginx starts an nginx with one worker.
func (l *lab) nginx(ctx context.Context, name, address, cores, http string) (*child.Process, error) {
	dir, err := filepath.Abs(l.dir)
	if err != nil {
		return nil, err
	}
	base := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
	var temporary strings.Builder
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temporary, "\t%s_temp_path %s-%s;\n", kind, base, kind)
	}
	text := fmt.Sprintf(`daemon off;
worker_processes 1;
pid %s.pid;
error_log %s.err warn;
events { worker_connections 4096; }
http {
	access_log off;
	keepalive_requests 1000000000;
	keepalive_timeout 600s;
%s%s
}
`, base, base, temporary.String(), http)
	if err := os.WriteFile(base+".conf", []byte(text), 0o600); err != nil {
		return nil, err
	}
	return l.start(ctx, filepath.Base(base), address, child.Command{Args: []string{"nginx", "-c", base + ".conf"}, Cores: cores})
}

func (l *lab) startUpstream(ctx context.Context) error {
	_, err := l.nginx(ctx, "upstream", l.upstream, l.loadCore, fmt.Sprintf(
		"\tserver {\n\t\tlisten %s;\n\t\tlocation / { default_type application/json; return 200 '%s'; }\n\t}", l.upstream, upstreamAnswer))
	return err
}

// nginxTarget starts an nginx as a gateway. http stands beside the server, and
// location in it.
func (l *lab) nginxTarget(ctx context.Context, name, http, location string) (*target, error) {
	address, err := child.FreeAddress()
	if err != nil {
		return nil, err
	}
	p, err := l.nginx(ctx, name, address, l.gatewayCore, fmt.Sprintf(`	upstream u { server %s; keepalive 128; keepalive_requests 1000000000; }
%s
	server {
		listen %s;
		location / {
			%s
			proxy_pass http://u;
			proxy_http_version 1.1;
			proxy_set_header Connection '';
		}
%s	}`, l.upstream, http, address, location, authLocation(http)))
	return &target{name: name, address: address, processes: []*child.Process{p}}, err
}

// authLocation is where auth_request asks, when there is somebody to ask.
func authLocation(http string) string {
	if !strings.Contains(http, "upstream auth ") {
		return ""
	}
	return `		location = /_auth {
			internal;
			proxy_pass http://auth;
			proxy_http_version 1.1;
			proxy_set_header Connection '';
			proxy_pass_request_body off;
			proxy_set_header Content-Length '';
		}
`
}

// nginxMap starts an nginx that has the tokens in a map of its configuration.
func (l *lab) nginxMap(ctx context.Context, tokens credentials) (*target, error) {
	entries, err := tokenMap(tokens, func(i int, token string) string { return fmt.Sprintf("\"Bearer %s\" k%d;", token, i) })
	if err != nil {
		return nil, err
	}
	path, err := filepath.Abs(filepath.Join(l.dir, "nginx-map"))
	if err != nil {
		return nil, err
	}
	if err := writeLines(path, entries); err != nil {
		return nil, err
	}
	buckets := 2048
	for buckets < 2*len(entries) {
		buckets *= 2
	}
	t, err := l.nginxTarget(ctx, "nginx map",
		fmt.Sprintf("\tmap_hash_max_size %d;\n\tmap_hash_bucket_size 256;\n\tmap $http_authorization $key { default ''; include %s; }", buckets, path),
		"if ($key = '') { return 401; }\n\t\t\tproxy_set_header Authorization '';\n\t\t\tproxy_set_header X-Key-Id $key;")
	if t != nil {
		t.checks = true
	}
	return t, err
}

// nginxAuthRequest starts an nginx that asks a service about each request.
func (l *lab) nginxAuthRequest(ctx context.Context, service *child.Process, at string) (*target, error) {
	t, err := l.nginxTarget(ctx, "nginx auth_request",
		fmt.Sprintf("\tupstream auth { server %s; keepalive 128; keepalive_requests 1000000000; }", at),
		"auth_request /_auth;\n\t\t\tauth_request_set $key $upstream_http_x_key_id;\n\t\t\tproxy_set_header Authorization '';\n\t\t\tproxy_set_header X-Key-Id $key;")
	if err == nil {
		t.checks, t.processes = true, append(t.processes, service)
	}
	return t, err
}
