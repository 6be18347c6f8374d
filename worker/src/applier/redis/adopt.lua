#!lua flags=allow-cross-slot-keys
-- Makes the hash of records at its place: new, or from copies of it. Does nothing unless all is as it was found.
-- KEYS[1] where the hash belongs
-- ARGV: replication id of this server, deadline (its clock, ms), header there now ('' = none), header it gets,
--       '1' to replace what is there by the fields of the first copy and those given, '0' to keep it,
--       number of other copies on this server, for each: key, its header; then fields and values
-- All copies are deleted.
-- Gives 1 when done, 0 when something changed.
local hash, argv = KEYS[1], ARGV
local clock = redis.call('TIME')
if clock[1] * 1000 + math.floor(clock[2] / 1000) > tonumber(argv[2]) then return 0 end
local role = redis.call('INFO', 'replication')
if not string.find(role, 'master_replid:' .. argv[1], 1, true) then return 0 end
if not string.find(role, 'role:master', 1, true) then return 0 end
if (redis.call('HGET', hash, '@') or '') ~= argv[3] then return 0 end

local copies, at = tonumber(argv[6]), 7
for copy = 1, copies do
  if (redis.call('HGET', argv[at + 2 * copy - 2], '@') or '') ~= argv[at + 2 * copy - 1] then return 0 end
end
if argv[5] == '1' then
  redis.call('DEL', hash)
  if copies > 0 then
    local fields = redis.call('HGETALL', argv[at])
    for pair = 1, #fields, 2 do redis.call('HSET', hash, fields[pair], fields[pair + 1]) end
  end
  for pair = at + 2 * copies, #argv, 2 do redis.call('HSET', hash, argv[pair], argv[pair + 1]) end
end
for copy = 1, copies do redis.call('DEL', argv[at + 2 * copy - 2]) end
redis.call('HSET', hash, '@', argv[4])
return 1
