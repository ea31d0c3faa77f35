"""The script that decides all quotas of a call in one round trip and by one clock, Redis's own.

The used units of a subject are a hash with a field per bucket, "UNITS AT": so many were taken out as of that time. Its calls in
flight are a sorted set per kind of slot, leases by the time they expire. Keys expire when they no longer matter. Arithmetic in
the same order as in memory.py.

The argument is one JSON text and the answer one string: thirty short ones would take the client in Python longer than the whole
script takes Redis.
"""

SCRIPT = """
local request = cjson.decode(ARGV[1])
local mode, now = request.mode, request.now
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end
local MINUTE, YEAR = 60000, 31536000000

-- A minute longer than needed: a clock that is set back must not let a key expire too early.
local function keep(key, seconds)
  local wanted = math.min(math.ceil(seconds * 1000) + MINUTE, YEAR)
  if redis.call('PTTL', key) < wanted then redis.call('PEXPIRE', key, string.format('%.0f', wanted)) end
end

local function exact(number) return string.format('%.17g', number) end

-- KEYS: one kind of slot of a subject
if mode == 'renew' then
  for _, lease in ipairs(request.leases) do redis.call('ZADD', KEYS[1], exact(now + request.hold), lease) end
  keep(KEYS[1], request.hold)
  return 1
end

local function release(first)
  for i = first, #KEYS do redis.call('ZREM', KEYS[i], request.lease) end
end

-- KEYS: the kinds of slots of a subject
if mode == 'release' then
  release(1)
  return 1
end

-- A write, because a server that is full or a read-only replica still answers reads.
if mode == 'probe' then
  redis.call('SET', KEYS[1], '', 'PX', 1000)
  return 1
end

-- KEYS: the hash of a subject, then its kinds of slots. Buckets: name, rate, burst and cost of each; slots: name and limit
local lease, hold, slots, count = request.lease, request.hold, request.slots, #request.buckets
local names, rate, burst, cost = {}, {}, {}, {}
for i, bucket in ipairs(request.buckets) do names[i], rate[i], burst[i], cost[i] = unpack(bucket) end

local used = {}
if count > 0 then
  local stored = redis.call('HMGET', KEYS[1], unpack(names))
  for i = 1, count do
    local units = 0
    if stored[i] then
      local was, at = string.match(stored[i], '(%S+) (%S+)')
      units = tonumber(was)
      local elapsed = now - tonumber(at)
      if elapsed > 0 then
        units = units - elapsed * rate[i]
        if not (units > 0) then units = 0 end
      end
    end
    used[i] = units
  end
end

local function write()
  if count == 0 then return end
  local fields, max_wait = {}, 0
  for i = 1, count do
    fields[#fields + 1] = names[i]
    fields[#fields + 1] = exact(used[i]) .. ' ' .. exact(now)
    max_wait = math.max(max_wait, used[i] / rate[i])
  end
  redis.call('HSET', KEYS[1], unpack(fields))
  keep(KEYS[1], max_wait)
end

if mode == 'show' then
  local left = {'left'}
  for i = 1, count do left[#left + 1] = exact(burst[i] - used[i]) end
  for i, slot in ipairs(slots) do
    left[#left + 1] = exact(slot[2] - redis.call('ZCOUNT', KEYS[i + 1], '(' .. exact(now), '+inf'))
  end
  return table.concat(left, ' ')
end

if mode == 'settle' or mode == 'finish' then
  for i = 1, count do
    used[i] = used[i] + cost[i]
    if not (used[i] > 0) then used[i] = 0 end
  end
  write()
  if mode == 'finish' then release(2) end
  return 1
end

-- take. First costs that are too large, then slots, then the bucket with the longest wait.
for i = 1, count do
  if cost[i] > burst[i] then return table.concat({'too_large', names[i], exact(burst[i] - used[i])}, ' ') end
end
local held = {}
for i, slot in ipairs(slots) do
  local key = KEYS[i + 1]
  redis.call('ZREMRANGEBYSCORE', key, '-inf', exact(now))
  held[i] = redis.call('ZCARD', key)
  if redis.call('ZSCORE', key, lease) then
    held[i] = held[i] - 1
  elseif held[i] >= slot[2] then
    return table.concat({'in_flight', slot[1], exact(slot[2] - held[i])}, ' ')
  end
end
local max_wait, which = 0, nil
for i = 1, count do
  local need = used[i] + cost[i] - burst[i]
  if need > 0 then
    local wait = (need + burst[i] * 1e-12) / rate[i] + 1e-6
    if wait > max_wait then max_wait, which = wait, i end
  end
end
if which then return table.concat({'spent', names[which], exact(burst[which] - used[which]), exact(max_wait)}, ' ') end
local left = {'left'}
for i = 1, count do
  used[i] = used[i] + cost[i]
  left[#left + 1] = exact(burst[i] - used[i])
end
write()
for i, slot in ipairs(slots) do
  redis.call('ZADD', KEYS[i + 1], exact(now + hold), lease)
  keep(KEYS[i + 1], hold)
  left[#left + 1] = exact(slot[2] - held[i] - 1)
end
return table.concat(left, ' ')
"""
