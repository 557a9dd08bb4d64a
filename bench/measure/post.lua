-- A wrk script: POST /v1/api-keys. Arguments: FILE, which holds a token
function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method, wrk.path, wrk.body = "POST", "/v1/api-keys", '{"name":"a name of 16 ch"}'
  wrk.headers["Content-Type"] = "application/json"
  wrk.headers["Authorization"] = "Bearer " .. file:read("*l")
  file:close()
end

function done(summary, latency)
  io.stderr:write(string.format(
    '{"requests":%d,"us":%d,"p50":%.1f,"p99":%.1f,"refused":%d,"broken":%d}\n', summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
