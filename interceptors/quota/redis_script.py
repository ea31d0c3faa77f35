"""What Redis runs: one script, so that all quotas of a call are decided in one round trip and by one clock, Redis's own.

The used units of a subject are a hash, field per bucket, "units at": so many were out of it at that time. Its calls in
flight are a sorted set for each kind of slot, members by the time they expire. Everything expires when it means nothing
any more. Arithmetic in the same order as in memory.py.
"""

SCRIPT = """
local mode, now = ARGV[1], tonumber(ARGV[2])
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

-- KEYS: one kind of slot of a subject. ARGV: mode, now, seconds a lease holds, leases
if mode == 'renew' then
  for i = 4, #ARGV do redis.call('ZADD', KEYS[1], exact(now + tonumber(ARGV[3])), ARGV[i]) end
  keep(KEYS[1], tonumber(ARGV[3]))
  return 1
end

-- KEYS: the kinds of slots of a subject. ARGV: mode, now, leases
if mode == 'release' then
  for _, key in ipairs(KEYS) do
    for i = 3, #ARGV do redis.call('ZREM', key, ARGV[i]) end
  end
  return 1
end

-- A write, for a server that is full or a replica answers everything else.
if mode == 'probe' then
  redis.call('SET', KEYS[1], '', 'PX', 1000)
  return 1
end

-- KEYS: the hash of a subject, then its kinds of slots.
-- ARGV: mode, now, lease, seconds it holds, number of buckets; name, rate, burst and cost of each; name and most of each slots
local lease, hold, count = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local names, rate, burst, cost = {}, {}, {}, {}
for i = 1, count do
  local at = 6 + (i - 1) * 4
  names[i], rate[i], burst[i], cost[i] = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
end
local slots, most = {}, {}
for i = 1, #KEYS - 1 do
  local at = 6 + count * 4 + (i - 1) * 2
  slots[i], most[i] = ARGV[at], tonumber(ARGV[at + 1])
end

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
  for i = 1, #slots do left[#left + 1] = exact(most[i] - redis.call('ZCOUNT', KEYS[i + 1], '(' .. exact(now), '+inf')) end
  return left
end

if mode == 'settle' then
  for i = 1, count do
    used[i] = used[i] + cost[i]
    if not (used[i] > 0) then used[i] = 0 end
  end
  write()
  return 1
end

-- take. First what no waiting helps with, then slots, then the bucket to wait for longest.
for i = 1, count do
  if cost[i] > burst[i] then return {'too_large', names[i], exact(burst[i] - used[i])} end
end
local held = {}
for i = 1, #slots do
  local key = KEYS[i + 1]
  redis.call('ZREMRANGEBYSCORE', key, '-inf', exact(now))
  held[i] = redis.call('ZCARD', key)
  if redis.call('ZSCORE', key, lease) then
    held[i] = held[i] - 1
  elseif held[i] >= most[i] then
    return {'in_flight', slots[i], exact(most[i] - held[i])}
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
if which then return {'spent', names[which], exact(burst[which] - used[which]), exact(longest)} end
local left = {'left'}
for i = 1, count do
  used[i] = used[i] + cost[i]
  left[#left + 1] = exact(burst[i] - used[i])
end
write()
for i = 1, #slots do
  redis.call('ZADD', KEYS[i + 1], exact(now + hold), lease)
  keep(KEYS[i + 1], hold)
  left[#left + 1] = exact(most[i] - held[i] - 1)
end
return left
"""
