-- eros.report(): a well-formed page, whatever there is to report and whatever it is called.
\ir include/begin.sql
SELECT setting ~ 'with-libxml' AS has_xml FROM pg_config WHERE name = 'CONFIGURE' \gset
\if :has_xml
\else
SELECT plan(1);
SELECT skip('the server is built without libxml', 1);
\ir include/end.sql
\quit
\endif
SELECT plan(41);

CREATE ROLE test_watch LOGIN IN ROLE pg_monitor;
CREATE ROLE test_nobody;
GRANT USAGE ON SCHEMA eros TO test_nobody;

-- The page as XML, and what is at a path in it.
CREATE TABLE t.page (n serial, page text, seen xml);
GRANT ALL ON t.page, t.page_n_seq TO PUBLIC;
CREATE FUNCTION t.look() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO t.page (page) VALUES (eros.report());
  UPDATE t.page SET seen = xmlparse(DOCUMENT page);
  RETURN 'well-formed';
END $$;
CREATE FUNCTION t.at(path text) RETURNS text[] LANGUAGE sql AS $$
  SELECT xpath(path, seen)::text[] FROM t.page ORDER BY n DESC LIMIT 1
$$;

CALL eventually('SELECT last_sweep IS NOT NULL FROM eros.status', 'true', 'EROS runs');
-- nothing is there yet, not even history
DELETE FROM eros.history_ring;
SELECT is(t.look(), 'well-formed', 'the page is well-formed');
SELECT is(t.at('//h1/text()'), ARRAY['EROS in pgtap_report'], 'it has one heading of its own');
SELECT is(t.at('//section/h2/text()'), ARRAY['CPU against the promise', 'Users by phase', 'Queue',
  'How fast a returning user stops the work on him', 'Results', 'Handlers, by cost', 'Checklist for growth', 'Prediction'],
  'and one for each part');
SELECT is(t.at('/html/@lang'), ARRAY['en'], 'it tells its language');
SELECT is((t.at('//*[contains(@class, "health")]//strong'))[1] ~ 'All is well', true, 'and that all is well');
SELECT matches((t.at('//section[@id = "handlers"]/p/text()'))[1], 'no handler yet', 'and that there is no handler');
DELETE FROM eros.phase;
SELECT is(t.look(), 'well-formed', 'without phases, too');
INSERT INTO eros.phase VALUES (1, '10 minutes', 95, 15), (2, '30 minutes', 95, 75), (3, '60 minutes', 95, 250);

-- names that want to be more than names
CREATE TABLE t.name (name text);
INSERT INTO t.name VALUES ('</title><script>alert(1)</script>'), ('" onload="alert(2)" x="'), (''' onload=''alert(3)'), ('&lt;img src=x onerror=alert(4)&gt;'),
  (E'\x01\x1b[31m\x7f\u0085'), (E'\u202e\U0001F600\uFFFE'), ('%s %1$s %I'), ('37|<b>x</b>'), ('</style><style>*{display:none}'), ('url(http://example.com/x)'), (']]><![CDATA['), ('<!--');
SELECT count(eros.add_handler(name, 't.echo', 1 + length(name) % 3)) FROM t.name;
-- users come, are idle, are computed for, and fail
CREATE FUNCTION t.fails(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'no luck for user %', user_ids[1];
END $$;
SELECT eros.add_handler('fails', 't.fails', 1, max_attempts => 1) > 0;
SELECT eros_touch(987654321012345::bigint), eros_touch('0b5e1d6c-7a43-4c1f-9a57-3f1d5c9e8a21'::uuid);
SELECT eros.advance_clock('15 minutes') AS t \gset
CALL eventually($$SELECT jobs_failed FROM eros.status_handler WHERE handler = 'fails'$$, '1', 'a job has failed');
UPDATE eros.handler SET enabled = false, error = 'no <script>alert(5)</script>', error_at = now() WHERE name LIKE '%script%';
-- phase 2 has used more than it is now promised, phase 3 next to nothing of it
UPDATE eros.phase SET cpu_percent = CASE phase WHEN 3 THEN 1 ELSE 95 END;
\ir include/day.sql
UPDATE eros.phase SET cpu_percent = CASE phase WHEN 2 THEN 10 ELSE 95 END;
SELECT is(t.look(), 'well-formed', 'with hostile names, failures and a full history it is well-formed, too');
SELECT is((SELECT array_agg(name ORDER BY name COLLATE "C") FROM t.name WHERE name NOT IN (E'\x01\x1b[31m\x7f\u0085', E'\u202e\U0001F600\uFFFE')
    AND replace(replace(replace(name, '&', '&amp;'), '<', '&lt;'), '>', '&gt;') <> ALL (t.at('//section[@id = "handlers"]//tbody/tr/th/text()'))), NULL::text[],
  'each name is shown as what it is');
SELECT is(array_to_string(t.at('//section[@id = "handlers"]//td/text()'), ' ') ~ 'cannot be called: no &lt;script&gt;', true, 'and so is an error');
SELECT is(t.at('//script | //img | //iframe | //object | //base'), '{}', 'nothing in it runs, or is loaded');
SELECT is(t.at('//@*[starts-with(name(), "on")]'), '{}', 'no attribute runs anything');
SELECT is(t.at('//@href | //@src'), ARRAY['data:,'], 'no attribute names another place');
SELECT is((SELECT count(*) FROM t.page WHERE page ~ 'https?://'), 1::bigint, 'an address is nowhere but in a name');
SELECT is((SELECT count(*) FROM t.page WHERE page !~ '^[\x09\x0a\x20-\x7e]*$'), 0::bigint, 'it is ASCII, without control characters');
SELECT is((SELECT count(*) FROM t.page WHERE page ~ '987654321012345|0b5e1d6c|no luck'), 0::bigint, 'it knows no user');
SELECT matches((t.at('//*[contains(@class, "health")]//li/strong/text()'))[1], 'Critical: 1 handlers cannot be called', 'it tells what is wrong');

-- the promise
CREATE FUNCTION t.of_phase(phase integer, path text) RETURNS text[] LANGUAGE sql AS $$
  SELECT t.at(format('//figure[.//svg/title[starts-with(., "Phase %s")]]%s', phase, path))
$$;
SELECT is(cardinality(t.of_phase(2, '//svg[@role]/path[@class = "bad"]')), 1, 'what is used beyond the promise is seen');
SELECT matches((t.of_phase(2, '//path[@class = "promise"]/@d'))[1], '^M0 [1-9]\d\dH1000$', 'and the promise is a line in the midst of it');
SELECT is(t.of_phase(1, '//svg[@role]/path[@class = "bad"]/@d'), '{}', 'not where the promise was kept');
SELECT is(cardinality(t.of_phase(1, '//svg[@role]/path[@class = "f1" or @class = "granted"]')), 2, 'where what was used and granted is seen all the same');
SELECT is(t.at('//svg[@role = "img"][count(path | rect) < 2]/title/text()'), '{}', 'no drawing is empty');
SELECT is(t.of_phase(1, '//ul[@class = "legend"]/li/text()'), ARRAY[' used', ' granted, since there was work', ' promised'], 'the legend names what is there');
SELECT is(t.of_phase(3, '//p/text()'), ARRAY['The promise is beyond this axis.'], 'and where little is used, that can be seen');

-- for those who do not see it
SELECT is(t.at('//section[.//svg[@role = "img"] and not(.//details//tbody/tr)]/@id'), '{}', 'each part with a drawing has its figures in a table');
SELECT is(t.at('//svg[@role = "img"][not(title) or not(desc)] | //svg[not(@role = "img") and not(@aria-hidden = "true")]'), '{}', 'each drawing has a name and a description');
SELECT cmp_ok(cardinality(t.at('//svg[@role = "img"]')), '>=', 6, 'there are drawings');
SELECT is((SELECT array_agg(DISTINCT ref) FROM unnest(t.at('//@aria-labelledby')) AS r (refs), regexp_split_to_table(refs, ' ') AS ref
  WHERE ref <> ALL (t.at('//@id'))), NULL::text[], 'what names them is there');
SELECT is((SELECT count(*) - count(DISTINCT id) FROM unnest(t.at('//@id')) AS i (id)), 0::bigint, 'no id is there twice');
SELECT is(t.at('//table[not(caption) or not(thead/tr/th[@scope = "col"])] | //tbody/tr[not(th[@scope = "row"])]'), '{}', 'each table has a caption and headings');
SELECT is((SELECT count(DISTINCT length(d) - length(replace(d, 'M', ''))) FROM unnest(t.at('//svg[title = "Users, active and idle"]/path[contains(@class, "stack")]/@d')) AS p (d)),
  1::bigint, 'all users have the same gap');
SELECT cmp_ok((SELECT min(length(d) - length(replace(d, 'M', ''))) FROM unnest(t.at('//svg[@role = "img"]/path[@class = "f0" or contains(@class, "f1")]/@d')) AS p (d)), '>=', 2,
  'where the server was down');

-- more handlers than anybody reads
SELECT count(eros.add_handler('handler ' || i, 't.echo', 1, enabled => false)) FROM generate_series(1, 100) AS i;
SELECT is(t.look(), 'well-formed', 'with many handlers');
SELECT is(cardinality(t.at('//section[@id = "handlers"]//tbody/tr')), 50, 'fifty are shown');
SELECT matches((t.at('//section[@id = "handlers"]//caption/text()'))[1], '50 of 113', 'and it says so');

-- what the escaping does with each character
SELECT is(eros.report_escape(E'a<b>&"''\u00e9\U0001F600\n'), 'a&#60;b&#62;&#38;&#34;&#39;&#233;&#128512;' || E'\n', 'markup and all beyond ASCII are references');
SELECT is(eros.report_escape(E'\x01\x7f\u0085\uFFFE'), repeat('&#65533;', 4), 'what may not stand is replaced');

-- who may
SET ROLE test_watch;
SELECT lives_ok('INSERT INTO t.page (page) SELECT eros.report()', 'the monitor makes one');
SET ROLE test_nobody;
SELECT throws_ok('SELECT eros.report()', '42501', NULL, 'others do not');
RESET ROLE;
\ir include/end.sql
