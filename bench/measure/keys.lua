-- A wrk script: GET requests, each with a credential that is a line of a file.
-- Arguments: FILE SCHEME SKIP TAKE ORDER. SKIP lines are passed over, TAKE are
-- used, in ORDER "random" or "in-order". Lines are of one length. The user agent is that of
-- the command once: hot keys have been used by the same client.
local requests, count, at, random = {}, 0, 0, true

function init(args)
  local file, scheme, skip, take = assert(io.open(args[1], "rb")), args[2], tonumber(args[3]), tonumber(args[4])
  random = args[5] ~= "in-order"
  local line = file:read("*l")
  file:seek("set", skip * (#line + 1))
  for line in file:lines() do
    if count == take then break end
    count = count + 1
    requests[count] = wrk.format("GET", nil, {
      ["Host"] = wrk.headers["Host"], ["User-Agent"] = "bench", ["Authorization"] = scheme .. " " .. line,
    })
  end
  file:close()
  math.randomseed(os.time())
end

function request()
  if random then return requests[math.random(count)] end
  at = at % count + 1
  return requests[at]
end

function done(summary, latency)
  io.stderr:write(string.format(
    '{"requests":%d,"us":%d,"p50":%.1f,"p99":%.1f,"refused":%d,"broken":%d}\n', summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
