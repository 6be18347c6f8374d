#!lua flags=allow-cross-slot-keys
-- Makes the hash of records at its place: new, or from copies of it. Does nothing unless all is as it was found.
-- KEYS[1] where the hash belongs
-- ARGV: replication id of this server, deadline (its clock, ms), header there now ('' = none), header it gets,
--       number of other copies on this server, for each: key, its header; then fields and values
-- The fields of the first copy are taken, then those given; all copies are deleted.
-- Gives 1 when done, 0 when something changed.
local hash, argv = KEYS[1], ARGV
local clock = redis.call('TIME')
if clock[1] * 1000 + math.floor(clock[2] / 1000) > tonumber(argv[2]) then return 0 end
local role = redis.call('INFO', 'replication')
if not string.find(role, 'master_replid:' .. argv[1], 1, true) then return 0 end
if not string.find(role, 'role:master', 1, true) then return 0 end
if (redis.call('HGET', hash, '@') or '') ~= argv[3] then return 0 end

local copies, at = tonumber(argv[5]), 6
for copy = 1, copies do
  if (redis.call('HGET', argv[at + 2 * copy - 2], '@') or '') ~= argv[at + 2 * copy - 1] then return 0 end
end
-- Only the compare above proves what is taken: a hash that is already at its place keeps its fields.
if argv[3] == '' then
  if copies > 0 then
    local fields = redis.call('HGETALL', argv[at])
    for pair = 1, #fields, 2 do redis.call('HSET', hash, fields[pair], fields[pair + 1]) end
  end
  for pair = at + 2 * copies, #argv, 2 do redis.call('HSET', hash, argv[pair], argv[pair + 1]) end
end
for copy = 1, copies do redis.call('DEL', argv[at + 2 * copy - 2]) end
redis.call('HSET', hash, '@', argv[4])
return 1
