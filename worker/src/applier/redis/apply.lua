#!lua flags=allow-cross-slot-keys
-- Compare-and-advance: one batch of mutations and the partition's record, together or not at all.
-- KEYS[1] hash with the records
-- ARGV: header, field, expected record ('' = none), next record, offset of slots left behind, mutations...
--   'D' slot key | 'S' slot key value | 'P' slot key value expiry | 'H' slot key expiry('' = none) n field value ...
-- Gives {0} header or record is another one, nothing written
--       {1, text} written; text = the record if slots stayed behind, else ''
--       {2, index, error} a mutation that cannot succeed (index from 0); the record is not written
local hash, argv = KEYS[1], ARGV
local now = redis.call('HMGET', hash, '@', argv[2])
if (now[1] or '') ~= argv[1] or (now[2] or '') ~= argv[3] then return {0} end

local behind, left = {}, {}
local index, at, count = 0, 6, #argv

-- Errors that time and slots do not heal. Everything else is taken as "this slot is not here now", which is safe: the
-- slot stays behind in the record and is tried again.
local function refused(err)
  return string.find(err, 'NOPERM', 1, true) or string.find(err, "can't access", 1, true)
    or string.find(err, "can't run this command", 1, true) or string.find(err, 'no permissions', 1, true)
    or string.find(err, 'WRONGTYPE', 1, true) or string.find(err, 'wrong number of arg', 1, true)
    or string.find(err, 'invalid expire', 1, true) or string.find(err, 'not an integer', 1, true)
    or string.find(err, 'exceeds maximum allowed size', 1, true)
end

local function failed(reply)
  return type(reply) == 'table' and reply.err
end

local function set_hash(key, expiry, first, n)
  local err = failed(redis.pcall('DEL', key))
  local last = first + n - 1
  -- Lua cannot pass more than some thousand arguments at once.
  while not err and first <= last do
    local upto = math.min(first + 999, last)
    err = failed(redis.pcall('HSET', key, unpack(argv, first, upto)))
    first = upto + 1
  end
  if not err and expiry ~= '' then err = failed(redis.pcall('PEXPIREAT', key, expiry)) end
  return err
end

while at <= count do
  local op, slot, key = argv[at], argv[at + 1], argv[at + 2]
  local err, size
  local skip = behind[slot]
  if op == 'S' then
    size = 4
    if not skip then err = failed(redis.pcall('SET', key, argv[at + 3])) end
  elseif op == 'P' then
    size = 5
    if not skip then err = failed(redis.pcall('SET', key, argv[at + 3], 'PXAT', argv[at + 4])) end
  elseif op == 'H' then
    local n = tonumber(argv[at + 4])
    size = 5 + n
    if not skip then err = set_hash(key, argv[at + 3], at + 5, n) end
  else
    size = 3
    if not skip then err = failed(redis.pcall('DEL', key)) end
  end
  if err then
    if refused(err) then return {2, index, err} end
    behind[slot] = true
    left[#left + 1] = slot
  end
  index = index + 1
  at = at + size
end

local text, note = argv[4], ''
if #left > 0 then
  text = text .. ' !' .. argv[5] .. ':' .. table.concat(left, ',')
  note = text
end
redis.call('HSET', hash, argv[2], text)
return {1, note}
