package main

// The peers' settings: what their manuals advise for many connections to one
// upstream, and what makes them do the same work: keep connections to it, pass
// upgrades and event streams as they come, tell it who asks, write no log.

const nginxConf = `
daemon off;
pid {DIR}/nginx.pid;
worker_processes {CPUS};
worker_rlimit_nofile {LIMIT};
error_log stderr crit;
events { worker_connections {LIMIT}; }
http {
	access_log off;
	tcp_nodelay on;
	client_body_temp_path {DIR}/body;
	proxy_temp_path {DIR}/proxy;
	fastcgi_temp_path {DIR}/fastcgi;
	uwsgi_temp_path {DIR}/uwsgi;
	scgi_temp_path {DIR}/scgi;
	keepalive_requests 1000000000;
	map $http_upgrade $connection_upgrade {
		default upgrade;
		"" "";
	}
	upstream gateway {
		server {UPSTREAM};
		keepalive 512;
		keepalive_requests 1000000000;
	}
	server {
		listen {ADDR} backlog=4096;
		location / {
			proxy_pass http://gateway;
			proxy_http_version 1.1;
			proxy_max_temp_file_size 0;
			proxy_read_timeout 1h;
			proxy_send_timeout 1h;
			proxy_set_header Host $http_host;
			proxy_set_header Upgrade $http_upgrade;
			proxy_set_header Connection $connection_upgrade;
			proxy_set_header X-Forwarded-For $remote_addr;
			proxy_set_header X-Forwarded-Proto $scheme;
		}
	}
}
`

const haproxyConf = `
global
	maxconn {CONNS}
	nbthread {CPUS}
defaults
	mode http
	option forwardfor
	option http-keep-alive
	option http-no-delay
	http-reuse always
	timeout connect 5s
	timeout client 1h
	timeout server 1h
	timeout tunnel 1h
	maxconn {CONNS}
frontend in
	bind {ADDR} backlog 4096
	default_backend gateway
backend gateway
	server one {UPSTREAM}
`

const caddyConf = `
{
	admin off
	auto_https off
	log {
		output discard
	}
}
http://:{PORT} {
	bind 127.0.0.1
	reverse_proxy {UPSTREAM} {
		flush_interval -1
		transport http {
			keepalive_idle_conns_per_host 512
			compression off
		}
	}
}
`
