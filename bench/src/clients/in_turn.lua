-- Script of wrk: requests the health of vm-1 to vm-<count> in turn, so that requests in flight are for different VMs.

local requests = {}
local last = 0

function init(args)
    for vm = 1, tonumber(args[1]) do
        requests[vm] = wrk.format("GET", "/vms/vm-" .. vm .. "/health")
    end
end

function request()
    last = last % #requests + 1
    return requests[last]
end
