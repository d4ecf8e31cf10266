-- Calls every function of the extension, found by the catalog, with values at the edges of their types, in a
-- random order that a seed repeats. What must never be is noted in fuzz.finding: an internal error.
--
--   psql -f fuzz.sql; CALL fuzz.run(calls, seed)

CREATE SCHEMA fuzz;
CREATE TABLE fuzz.finding (seed double precision, call bigint, sqlstate text, message text, statement text);
CREATE TABLE fuzz.outcome (function text, sqlstate text, calls bigint DEFAULT 1, PRIMARY KEY (function, sqlstate));

-- What the functions may be called on: handlers of both kinds, one of which fails.
CREATE FUNCTION fuzz.number(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE sql AS
  $$ SELECT u, to_jsonb(u) FROM unnest(user_ids) u $$;
CREATE FUNCTION fuzz.uuid(user_ids uuid[]) RETURNS TABLE (user_id uuid, value jsonb) LANGUAGE sql AS
  $$ SELECT u, to_jsonb(u) FROM unnest(user_ids) u $$;
CREATE FUNCTION fuzz.fails(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE plpgsql AS
  $$ BEGIN RAISE EXCEPTION 'no %', user_ids; END $$;

-- Expressions for values of a type, at its edges and beyond those that EROS has.
CREATE TABLE fuzz.value (type regtype, expression text);
INSERT INTO fuzz.value
  SELECT v.type, e FROM (VALUES
    ('bigint'::regtype, ARRAY['0', '1', '-1', '42', '9223372036854775807', '(-9223372036854775808)', '(random() * 1000)::bigint', '4294967296']),
    ('integer', ARRAY['0', '1', '2', '3', '-1', '8', '9', '100', '1000', '1001', '2147483647', '(-2147483648)']),
    ('smallint', ARRAY['0', '1', '3', '-1', '8', '9', '24', '32767', '(-32768)']),
    ('double precision', ARRAY['0', '-0.0', '1', '50', '95', '-1', '''NaN''', '''Infinity''', '''-Infinity''', '1e308', '-1e308', '1e-307', '0.5']),
    ('boolean', ARRAY['true', 'false']),
    ('uuid', ARRAY['''00000000-0000-0000-0000-000000000000''', '''ffffffff-ffff-ffff-ffff-ffffffffffff''', 'gen_random_uuid()',
      '''00000000-0000-0000-8000-000000000000''', '(''00000000-0000-0000-'' || right(gen_random_uuid()::text, 17))', '''a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11''']),
    ('text', ARRAY['''''', '''x''', '''number''', '''uuid''', '''fails''', '''off''', '''NUMBER''', 'repeat(''x'', 63)', 'repeat(''x'', 64)', 'repeat(''ä'', 32)', 'repeat(''x'', 1000000)',
      '''fuzz.number''', '''fuzz.uuid''', '''fuzz.number(bigint[])''', '''fuzz.fails''', '''a.b.c.d''', '''."x"''', '''"''', '''""''', '''(((''', '''f(''', '''f(x y z)''', '''pg_catalog.array_in''',
      '''pg_catalog.int8in(cstring)''', '''eros.get(text, bigint)''', '''4294967295''', '''0''', '''9223372036854775807''', '''9223372036854775808''', '''-9223372036854775808''', ''' 42 ''', '''4 2''', '''0x10''', '''1e3''', '''-''', '''+''',
      '''00000000-0000-0000-0000-000000000001''', '''{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}''', 'E''\x01''', 'E''\n''', '''%s%n''', '''\''', 'E''\x27; --'''])
  ) v(type, es), unnest(v.es) e;
INSERT INTO fuzz.value
  SELECT v.type, e FROM (VALUES
    ('name'::regtype, ARRAY['''''', '''x''', '''get''', '''eros_touch''', '''lock_lwlock''', 'repeat(''x'', 63)::name', '''"''']),
    ('interval', ARRAY['''0''', '''1 second''', '''-1 second''', '''1 microsecond''', '''24 hours''', '''365 days''', '''1 month''', '''366 days''', '''178000000 years''', '''-178000000 years''',
      '''2147483647 days''', '''-2147483648 days''', '''2562047788 hours''', '''-2562047788 hours''', '''2147483647 months''', '''2147483647 months 2147483647 days 2562047788 hours''']),
    ('timestamp with time zone', ARRAY['''infinity''', '''-infinity''', '''epoch''', '''294276-12-31 23:59:59+00''', '''4713-01-01 00:00:00+00 BC''', 'clock_timestamp()', 'eros.now()', '''2000-01-01''']),
    ('regclass', ARRAY['''eros.cache''', '''eros.job''', '''pg_class''', '0::oid', '4294967295::oid', '1::oid', '(SELECT c.partition FROM eros.cache_partitions() c LIMIT 1)']),
    ('regrole', ARRAY['''fuzz_role''', '0::oid', '4294967295::oid', '1::oid', '''pg_monitor''']),
    ('oid', ARRAY['0', '1', '4294967295', '''pg_class''::regclass']),
    ('jsonb', ARRAY['''null''', '''{}''', '''[]''', '''"x"''', 'to_jsonb(repeat(''x'', 100000))', '''{"a": [1, {"b": null}]}''']),
    ('eros.job_status', ARRAY['''pending''', '''failed''']),
    ('eros.user_type', ARRAY['''bigint''', '''uuid'''])
  ) v(type, es), unnest(v.es) e;
INSERT INTO fuzz.value SELECT t.oid, 'NULL' FROM (SELECT DISTINCT type AS oid FROM fuzz.value) t;

-- An expression for a value of a type, arrays included.
CREATE FUNCTION fuzz.expression(wanted oid) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  element oid := (SELECT t.typelem FROM pg_type t WHERE t.oid = wanted AND t.typcategory = 'A');
  e text;
  kind integer := floor(random() * 12);
BEGIN
  IF element IS NULL THEN
    SELECT v.expression INTO e FROM fuzz.value v WHERE v.type = wanted ORDER BY random() LIMIT 1;
    RETURN format('%s::%s', coalesce(e, 'NULL'), wanted::regtype);
  END IF;
  e := fuzz.expression(element);
  RETURN format('(%s)::%s', CASE kind
    WHEN 0 THEN 'NULL'
    WHEN 1 THEN '''{}'''
    WHEN 2 THEN 'ARRAY[NULL]'
    WHEN 3 THEN format('ARRAY[ARRAY[%s, NULL], ARRAY[%s, %s]]', e, fuzz.expression(element), e)
    WHEN 4 THEN format('array_fill(%s, ARRAY[3], ARRAY[2147483640])', e)
    WHEN 5 THEN format('array_fill(%s, ARRAY[2, 2, 2, 2, 2, 2])', e)
    WHEN 6 THEN format('array_fill(%s, ARRAY[%s])', e, CASE WHEN random() < 0.02 THEN 1000000 ELSE 2000 END)
    WHEN 7 THEN format('array_fill(%s, ARRAY[0])', e)
    ELSE (SELECT 'ARRAY[' || string_agg(fuzz.expression(element), ', ') || ']' FROM generate_series(1, 1 + kind % 5))
  END, wanted::regtype);
END $$;

-- One call of one function.
CREATE FUNCTION fuzz.statement(function oid) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  f pg_proc := (SELECT p FROM pg_proc p WHERE p.oid = function);
  given integer := f.pronargs - floor(random() * (f.pronargdefaults + 1));
  arguments text;
BEGIN
  SELECT string_agg(fuzz.expression(a.type), ', ' ORDER BY a.n) INTO arguments
    FROM unnest(f.proargtypes::oid[]) WITH ORDINALITY a(type, n) WHERE a.n <= given;
  RETURN format('SELECT %s(%s)%s', function::regproc, coalesce(arguments, ''),
    CASE WHEN random() < 0.1 THEN ' FROM generate_series(1, 3)' ELSE '' END);
END $$;

-- Calls whatever the extension has; each transaction has some calls, each in a subtransaction.
CREATE PROCEDURE fuzz.run(calls bigint, seed double precision) LANGUAGE plpgsql AS $$
DECLARE
  functions oid[] := (SELECT array_agg(p.oid ORDER BY p.oid::regprocedure::text)
    FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
    JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND e.extname = 'eros'
    -- it is CREATE EXTENSION's, and forgets all that was counted
    WHERE p.proname <> 'announce');
  f oid;
  s text;
  state text;
BEGIN
  PERFORM setseed(seed);
  FOR n IN 1 .. calls LOOP
    IF n % 500 = 1 THEN
      PERFORM eros.add_handler(h.name, 'fuzz.' || h.name, 1 + n::integer % 3, replace => true, enabled => h.name <> 'off')
        FROM (VALUES ('number'), ('uuid'), ('fails')) h(name);
      PERFORM eros.add_handler('off', 'fuzz.number', 1, replace => true, enabled => false);
    END IF;
    f := functions[1 + floor(random() * cardinality(functions))];
    s := fuzz.statement(f);
    BEGIN
      EXECUTE s;
      state := '00000';
      IF random() < 0.2 THEN
        RAISE SQLSTATE 'ERBCK'; -- what it did is rolled back
      END IF;
    EXCEPTION WHEN OTHERS THEN
      state := CASE SQLSTATE WHEN 'ERBCK' THEN '00000' ELSE SQLSTATE END;
      IF SQLSTATE LIKE 'XX%' OR SQLERRM ILIKE '%cache lookup failed%' OR SQLERRM LIKE 'unrecognized%' OR
        -- a syntax error in a statement of EROS's own; the name of a function may well have one
        (SQLSTATE = '42601' AND f::regproc <> 'eros.add_handler'::regproc) THEN
        INSERT INTO fuzz.finding VALUES (seed, n, SQLSTATE, SQLERRM, left(s, 2000));
      END IF;
    END;
    INSERT INTO fuzz.outcome VALUES (f::regprocedure::text, state)
      ON CONFLICT (function, sqlstate) DO UPDATE SET calls = outcome.calls + 1;
    IF n % 50 = 0 THEN
      COMMIT;
    END IF;
  END LOOP;
END $$;
