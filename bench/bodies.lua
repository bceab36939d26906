-- wrk posts the lines of a file in turn: wrk -s bodies.lua URL -- FILE ["name: value"]
-- The last line of the output is one JSON object.

local requests, turn = {}, 0

function init(args)
   local name, value = (args[2] or ""):match("^([^:]+):%s*(.*)$")
   local headers = {["content-type"] = "application/json", ["x-openrtb-version"] = "2.6"}
   if name then headers[name] = value end
   for line in io.lines(args[1]) do
      if #line > 0 then requests[#requests + 1] = wrk.format("POST", nil, headers, line) end
   end
end

function request()
   turn = turn % #requests + 1
   return requests[turn]
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      '{"requests":%d,"seconds":%.6f,"errors":%d,"p50_ms":%.3f,"p99_ms":%.3f}\n',
      summary.requests, summary.duration / 1e6,
      errors.connect + errors.read + errors.write + errors.status + errors.timeout,
      latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
