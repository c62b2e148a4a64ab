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

-- What is longer was written by nobody who is a hub, and costs too much to read.
local function decoded(text)
  local ok, fields
  if #text <= 16384 then ok, fields = pcall(cjson.decode, text) end
  return ok and type(fields) == 'table' and fields or {}
end

-- A record has a time, which is its score in the channel, and leaves room for that of the next one.
local function is_record(text, score)
  local at = decoded(text).deployedAt
  return type(at) == 'number' and at > 0 and at < 9007199254740991 and at % 1 == 0 and (not score or at == tonumber(score))
end

-- A memory that holds anything else than a record, of whatever type, remembers nothing: SET replaces it.
local function get(key)
  local value = redis.pcall('GET', key)
  if type(value) == 'table' then
    return not string.find(value.err, 'WRONGTYPE', 1, true) and redis.call('GET', key)
  end
  return value
end

-- The same nonce is this very request: its first answer was lost, and redis-py sent the script again.
local remembered = get(memory)
local record_of_then = remembered and string.sub(remembered, #nonce + 1)
if record_of_then and is_record(record_of_then) then
  if string.sub(remembered, 1, #nonce) == nonce then return {'recorded', record_of_then} end
  return {has_head(record_of_then) and 'repeated' or 'conflict', record_of_then}
end

-- What stands above the newest record, and is none, goes when there is a newer one: it would hide that.
local history = redis.call('ZRANGE', channel, 0, -1, 'REV', 'WITHSCORES')
local first = 1
while history[first] and not is_record(history[first], history[first + 1]) do first = first + 2 end
local newest, last = history[first], tonumber(history[first + 1])
if newest and has_head(newest) then
  remember(newest)
  return {'repeated', newest}
end

local spent = used and get(used)
if spent and is_record(spent) then return {'replayed', spent} end

local function same_build(a, b)
  return a.version == b.version and a.gitCommit == b.gitCommit and a.gitTag == b.gitTag
end

local function is_rollback()
  if not newest then return false end
  local build, live = decoded(head .. '}'), decoded(newest)
  if same_build(build, live) then return live.rollback == true end
  for i = first + 2, #history, 2 do
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
for i = 1, first - 1, 2 do
  if history[i] ~= record then redis.pcall('ZREM', channel, history[i]) end
end
redis.call('ZREMRANGEBYRANK', channel, 0, -kept - 1)
-- A hint that can't be given (an ACL without the channel) must not undo the record: readers reconcile.
redis.pcall('PUBLISH', messages, record)
if used then redis.call('SET', used, record, 'EX', validity) end
remember(record)
return {'recorded', record}
