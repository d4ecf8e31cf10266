-- When most users have left, the map of active users becomes smaller, and those who stay are in it.
\ir include/begin.sql
SELECT plan(5);
SELECT eros.freeze_clock() AS t \gset
CREATE VIEW t.stayed AS SELECT count(eros_touch(g)) FROM generate_series(1, 3000) g;

SELECT count(eros_touch(g)) AS t FROM generate_series(1, 200000) g \gset
SELECT is((SELECT active_users FROM eros.status), 200000::bigint, 'all are active');
SELECT eros.advance_clock('8 minutes') AS t \gset
SELECT count AS t FROM t.stayed \gset
SELECT eros.advance_clock('8 minutes') AS t \gset
CALL eventually('SELECT active_users FROM eros.status', '3000', 'most of them leave');
SELECT returns AS before FROM eros.status \gset

-- each look at the map is at users who are idle for eight minutes
SELECT count AS t FROM t.stayed \gset
SELECT eros.advance_clock('8 minutes') AS t, eros.sweep() AS s \gset
SELECT count AS t FROM t.stayed \gset
SELECT eros.advance_clock('8 minutes') AS t, eros.sweep() AS s \gset
SELECT count AS t FROM t.stayed \gset
SELECT is((SELECT returns FROM eros.status), :before::bigint, 'who stays is there at each touch');
SELECT is((SELECT active_users FROM eros.status), 3000::bigint, 'and is counted once');

-- and it grows again
SELECT count(eros_touch(g)) AS t FROM generate_series(1, 200000) g \gset
SELECT is((SELECT returns FROM eros.status), :before::bigint + 197000, 'the others come back');
\ir include/end.sql
