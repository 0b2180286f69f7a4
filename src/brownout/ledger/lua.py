"""What the ledger runs inside of Redis: each script is one step for everybody else."""

from __future__ import annotations

from brownout._core.ledger import SKEW_SECONDS
from brownout.ledger.sql import SCHEMA

# KEYS: the row, the server. ARGV[1]: the clock, or '' for the server's. The server is looked at only for
# a key without a row: a new one, or one that was forgotten.
_HEAD = """
local now = tonumber(ARGV[1])
if not now then local t = redis.call('TIME'); now = t[1] * 1000 + math.floor(t[2] / 1000) end
local function seen(mine, since)
  local r = redis.call('HMGET', KEYS[1], 's', 'f', 'h', 'p', 'l', 'm', 'c', 'b')
  return {mine, now, since, r[1], r[2], r[3], r[4], r[5], r[6], r[7], r[8]}
end
local function server()
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  local a = redis.call('HMGET', KEYS[2], 'version', 'epoch', 'since')
  if a[1] and a[1] ~= VERSION then return a[1], 0 end
  if a[2] == run then return a[1], tonumber(a[3]) end
  redis.call('HSET', KEYS[2], 'version', VERSION, 'epoch', run, 'since', now)
  return VERSION, now
end
local function lasts(standing, keep)
  if standing ~= '2' and standing ~= '3' then redis.call('PERSIST', KEYS[1])
  elseif redis.call('PTTL', KEYS[1]) < keep then redis.call('PEXPIRE', KEYS[1], keep) end
end
""".replace("VERSION", f"'{SCHEMA}'")
CREATE = f"{_HEAD}return {{server()}}"
GET = f"""{_HEAD}
if redis.call('EXISTS', KEYS[1]) == 1 then return seen(0, 0) end
local version, since = server()
return {{0, now, since, false, version}}"""
PUT = f"""{_HEAD}
local f = redis.call('HGET', KEYS[1], 'f')
if f then return seen(f == ARGV[3] and 1 or 0, 0) end
local version, since = server()
local born, age, lease = tonumber(ARGV[6]), tonumber(ARGV[8]), tonumber(ARGV[7])
if version ~= '{SCHEMA}' or born < now - age or born > now + {int(SKEW_SECONDS * 1000)}
  or (ARGV[9] == '0' and born < since) then return {{0, now, since, false, version}} end
local till = 0
if lease > 0 then till = now + lease end
redis.call('HSET', KEYS[1], 's', ARGV[2], 'f', ARGV[3], 'h', ARGV[4], 'p', ARGV[5],
  'l', till, 'm', now)
lasts(ARGV[2], tonumber(ARGV[10]))
return seen(1, since)"""
SWAP = f"""{_HEAD}
local r = redis.call('HMGET', KEYS[1], 's', 'f', 'l')
if r[1] ~= ARGV[2] or r[2] ~= ARGV[3] or (ARGV[4] ~= '' and r[3] ~= ARGV[4]) then return 0 end
if ARGV[5] == '0' then redis.call('DEL', KEYS[1]); return 1 end
redis.call('HSET', KEYS[1], 's', ARGV[5], 'f', ARGV[6], 'h', ARGV[7], 'p', ARGV[8],
  'l', now + tonumber(ARGV[9]))
if ARGV[10] ~= '' then redis.call('HSET', KEYS[1], 'c', ARGV[10], 'b', ARGV[11]) end
lasts(ARGV[5], tonumber(ARGV[12]))
return 1"""
