"""What Redis runs: one script, so that all quotas of a call are decided in one round trip and by one clock, Redis's own.

The used units of a subject are a hash, field per bucket, "units at": so many were out of it at that time. Its calls in
flight are a sorted set for each kind of slot, members by the time they expire. Everything expires when it means nothing
any more. Arithmetic in the same order as in memory.py.

What is asked is one argument, JSON, and what is answered one string: a client in Python takes longer over thirty short ones
than Redis over everything.
"""

SCRIPT = """
local asked = cjson.decode(ARGV[1])
local mode, now = asked.mode, asked.now
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end
local MINUTE, YEAR = 60000, 31536000000

-- Longer than needed by a minute: a clock that is set back must not make anything expire too early.
local function keep(key, seconds)
  local wanted = math.min(math.ceil(seconds * 1000) + MINUTE, YEAR)
  if redis.call('PTTL', key) < wanted then redis.call('PEXPIRE', key, string.format('%.0f', wanted)) end
end

local function exact(number) return string.format('%.17g', number) end

-- KEYS: one kind of slot of a subject
if mode == 'renew' then
  for _, lease in ipairs(asked.leases) do redis.call('ZADD', KEYS[1], exact(now + asked.hold), lease) end
  keep(KEYS[1], asked.hold)
  return 1
end

local function release(first)
  for i = first, #KEYS do redis.call('ZREM', KEYS[i], asked.lease) end
end

-- KEYS: the kinds of slots of a subject
if mode == 'release' then
  release(1)
  return 1
end

-- A write, for a server that is full or a replica answers everything else.
if mode == 'probe' then
  redis.call('SET', KEYS[1], '', 'PX', 1000)
  return 1
end

-- KEYS: the hash of a subject, then its kinds of slots. Buckets: name, rate, burst and cost of each; slots: name and most
local lease, hold, slots, count = asked.lease, asked.hold, asked.slots, #asked.buckets
local names, rate, burst, cost = {}, {}, {}, {}
for i, bucket in ipairs(asked.buckets) do names[i], rate[i], burst[i], cost[i] = unpack(bucket) end

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
  local fields, longest = {}, 0
  for i = 1, count do
    fields[#fields + 1] = names[i]
    fields[#fields + 1] = exact(used[i]) .. ' ' .. exact(now)
    longest = math.max(longest, used[i] / rate[i])
  end
  redis.call('HSET', KEYS[1], unpack(fields))
  keep(KEYS[1], longest)
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

-- take. First what no waiting helps with, then slots, then the bucket to wait for longest.
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
local longest, which = 0, nil
for i = 1, count do
  local need = used[i] + cost[i] - burst[i]
  if need > 0 then
    local wait = (need + burst[i] * 1e-12) / rate[i] + 1e-6
    if wait > longest then longest, which = wait, i end
  end
end
if which then return table.concat({'spent', names[which], exact(burst[which] - used[which]), exact(longest)}, ' ') end
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
