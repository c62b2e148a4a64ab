-- Appends a deployment to its channel as one step: decide, store, trim, publish, remember.
--
-- KEYS  1 the channel's sorted set
--       2 the idempotency key's memory; in the channel's hash slot
--       3 where there is an identity: the memory of its token; in the same slot
-- ARGV  1 the client's fields: a JSON object without its closing brace
--       2 a nonce of the request, as long as every other
--       3 how long the key is remembered, in seconds
--       4 how many deployments are kept
--       5 the channel's pub/sub channel
--       6 where there is an identity: for how long its token is good, in seconds
-- gives {"recorded" | "repeated" | "conflict" | "replayed", the record}; the last two with that of the first use

local channel, memory, used = KEYS[1], KEYS[2], KEYS[3]
local head, nonce, lifetime, kept, messages, validity = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6]

local function has_head(record)
  local start = head .. ',"deployedAt":'
  return string.sub(record, 1, #start) == start
end

local function remember(record)
  redis.call('SET', memory, nonce .. record, 'EX', lifetime)
end

-- The same nonce is this very request: its first answer was lost, and redis-py sent the script again.
local remembered = redis.call('GET', memory)
if remembered then
  local record = string.sub(remembered, #nonce + 1)
  if string.sub(remembered, 1, #nonce) == nonce then return {'recorded', record} end
  return {has_head(record) and 'repeated' or 'conflict', record}
end

local history = redis.call('ZRANGE', channel, 0, -1, 'REV', 'WITHSCORES')
local newest, last = history[1], tonumber(history[2])
if newest and has_head(newest) then
  remember(newest)
  return {'repeated', newest}
end

local spent = used and redis.call('GET', used)
if spent then return {'replayed', spent} end

local function decoded(record)
  local ok, fields = pcall(cjson.decode, record)
  return ok and type(fields) == 'table' and fields or {}
end

local function same_build(a, b)
  return a.version == b.version and a.gitCommit == b.gitCommit and a.gitTag == b.gitTag
end

local function is_rollback()
  if not newest then return false end
  local build, live = decoded(head .. '}'), decoded(newest)
  if same_build(build, live) then return live.rollback == true end
  for i = 3, #history, 2 do
    if same_build(build, decoded(history[i])) then return true end
  end
  return false
end

local time = redis.call('TIME')
local deployed_at = time[1] * 1000 + math.floor(time[2] / 1000)
if last and last >= deployed_at then deployed_at = last + 1 end

-- tostring() would write milliseconds as 1.7638001234560e+12.
local function integer(number) return string.format('%.0f', number) end

local record = head
  .. ',"deployedAt":' .. integer(deployed_at)
  .. ',"previous":' .. (last and integer(last) or 'null')
  .. ',"rollback":' .. tostring(is_rollback()) .. '}'

-- The first write is the one that Redis refuses whole when it is read-only or full.
redis.call('ZADD', channel, integer(deployed_at), record)
redis.call('ZREMRANGEBYRANK', channel, 0, -kept - 1)
-- A hint that can't be given (an ACL without the channel) must not undo the record: readers reconcile.
redis.pcall('PUBLISH', messages, record)
if used then redis.call('SET', used, record, 'EX', validity) end
remember(record)
return {'recorded', record}
