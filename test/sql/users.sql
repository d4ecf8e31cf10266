-- Users' keys: bigint and uuid ids side by side in 16 bytes.
SELECT eros.user_key(42), eros.user_key(0), eros.user_key(-1);
SELECT eros.user_key(9223372036854775807), eros.user_key(-9223372036854775808);
SELECT eros.user_bigint(eros.user_key(42)), eros.user_bigint(eros.user_key(0)), eros.user_bigint(eros.user_key(-1));
SELECT eros.user_bigint(eros.user_key(9223372036854775807)), eros.user_bigint(eros.user_key(-9223372036854775808));
-- a real uuid stands for no bigint
SELECT eros.user_bigint('0190a2b4-0000-7000-8000-000000000001');
SELECT eros.user_key(NULL), eros.user_bigint(NULL);

-- a uuid that would be taken for a bigint is refused
SELECT eros_touch('00000000-0000-0000-0000-000000000000'::uuid);
SELECT eros_touch('00000000-0000-0000-0000-00000000002a'::uuid);
SELECT eros_touch(ARRAY['0190a2b4-0000-7000-8000-000000000001', '00000000-0000-0000-0000-00000000002a']::uuid[]);

-- as text, for drivers that tell no type
SELECT eros_touch('42'), eros_touch('-42'), eros_touch('0190a2b4-0000-7000-8000-000000000001');
\set VERBOSITY sqlstate
SELECT eros_touch('');
SELECT eros_touch('somebody');
SELECT eros_touch('9223372036854775808');
SELECT eros_touch('0190a2b4-0000-7000-8000-00000000000');
SELECT eros_touch('00000000-0000-0000-0000-00000000002a');
\set VERBOSITY default
-- no choice has to be made for an untyped parameter
PREPARE touch AS SELECT eros_touch($1);
EXECUTE touch ('43');
DEALLOCATE touch;
