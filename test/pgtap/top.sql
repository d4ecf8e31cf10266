-- eros.top(): a screen that fits the terminal, right at the first look, with no surprise in a name.
\ir include/begin.sql
SELECT plan(24);

CREATE FUNCTION t.screen(width integer DEFAULT 80, height integer DEFAULT 24, ascii boolean DEFAULT true) RETURNS text
LANGUAGE sql AS $$ SELECT string_agg(screen, E'\n') FROM eros.top(width, height, 5, ascii) $$;

-- at rest
CALL eventually('SELECT last_sweep IS NOT NULL FROM eros.status', 'true', 'EROS runs');
SELECT is((SELECT count(*) FROM eros.top()), 17::bigint, '24 lines of a terminal are 17 of the screen and 7 of psql');
SELECT is((SELECT count(*) FROM eros.top(height => 60)), 53::bigint, 'a higher one has more');
SELECT is((SELECT count(*) FROM eros.top(height => 3)), 1::bigint, 'the lowest has one');
SELECT is((SELECT max(char_length(screen)) FROM eros.top(height => 60)), 78, '80 columns are 78 and psql''s two');
SELECT is((SELECT max(char_length(screen)) FROM eros.top(132, 60)), 130, 'a wider one is used');
SELECT is((SELECT max(char_length(screen)) FROM eros.top(NULL, NULL, NULL, NULL)), 78, 'NULL is the default');
SELECT matches(t.screen(), 'status ok', 'it tells that all is well');
SELECT matches(t.screen(), 'halts  none', 'and that nothing was halted');
SELECT matches(t.screen(), 'no worker runs', 'and that no worker runs');
SELECT matches(t.screen(), E'\n +1 +10 min +0 +0 .* of +95 %', 'a phase, with its share');

-- a day's names: control characters, wide ones, markup
SELECT eros.add_handler(E'bad\x1b[31m\nname', 't.echo', 1) > 0;
SELECT eros.add_handler(repeat('long ', 12), 't.echo', 3) > 0;
SELECT is(t.screen(height => 60) ~ E'\x1b', false, 'a name cannot send control sequences to the terminal');
SELECT is((SELECT count(*) FROM regexp_split_to_table(t.screen(height => 60), E'\n')), 53::bigint, 'nor break lines');
SELECT is((SELECT max(char_length(screen)) FROM eros.top(height => 60)), 78, 'nor make them longer');

-- something to do
CREATE FUNCTION t.sleeps(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_sleep(60);
END $$;
SELECT eros.add_handler('sleeps', 't.sleeps', 1) > 0;
SELECT eros_touch(ARRAY[1, 2, 3]::bigint[]);
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually($$SELECT t.screen(height => 60) ~ E'\n +1  computing +sleeps +1 +3 '$$, 'true', 'a worker, with what it does');
SELECT matches(t.screen(), E'\n +1 +10 min +3 ', 'the users of a phase');
SELECT matches(t.screen(height => 60), E'\n       sleeps +1 +3 +0 ', 'the queue');
SELECT eros_touch(2);
CALL eventually($$SELECT t.screen(height => 60) ~ E'ago  sleeps +phase 1 +[0-9.]+ m?s  a user was back'$$, 'true', 'a halt');
SELECT matches(t.screen(), 'halts  1 by returns', 'and the latencies');

-- rates: of this session's looks, once there are two
SELECT eros.drop_handler('sleeps');
CALL eventually('SELECT max(span) < 10 AND bool_and(used_percent >= 0 AND users_done >= 0) FROM eros.top_rates(1)', 'true',
  'the rates are those of the last second or so');

-- bars
SELECT is(eros.show_bar(25, 50, 100, 8, true), '##==....', 'used, granted, not asked for');
SELECT is(eros.show_bar(1000, 0, 100, 4, true) || eros.show_bar(NULL, NULL, NULL, 4, true) || eros.show_bar(1, 1, 0, 4, true),
  '####........', 'more than the share, nothing, no share');
SELECT is((SELECT array_agg(DISTINCT char_length(eros.show_bar(u / 7.0, u / 3.0, 10, 9, false))) FROM generate_series(0, 100) u),
  ARRAY[9], 'a bar in blocks has its length, too');
SELECT is((SELECT array_agg(concat_ws('|', eros.show_number(n), eros.show_ms(n::float8), eros.show_bytes(n)) ORDER BY n)
    FROM unnest('{0,0.5,12,12345,9999999,123456789012}'::numeric[]) n),
  ARRAY['0|0 ms|0 B', '0.5|0.50 ms|1 B', '12|12 ms|12 B', '12,345|12.3 s|12 kB', '10.0 M|2.8 h|9.5 MB', '123.5 G|1,429 days|115.0 GB'],
  'figures for people');
\ir include/end.sql
