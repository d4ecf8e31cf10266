-- The phases: rows that the administrator changes, and what is refused.
\set SHOW_CONTEXT never
SELECT * FROM eros.phase ORDER BY phase;
BEGIN;
UPDATE eros.phase SET idle_after = idle_after / 600000;
SELECT phase, idle_after FROM eros.phase ORDER BY phase;
INSERT INTO eros.phase VALUES (4, '1 day', 20, 1000);
SELECT phase, idle_after, cpu_percent, batch_size, users FROM eros.status_phase ORDER BY phase;
DELETE FROM eros.phase WHERE phase = 2;
ROLLBACK;
-- overlap
UPDATE eros.phase SET idle_after = '30 minutes' WHERE phase = 1;
UPDATE eros.phase SET idle_after = '2 hours' WHERE phase = 2;
INSERT INTO eros.phase VALUES (4, '1 minute', 5, 10);
-- above the hard cap
UPDATE eros.phase SET cpu_percent = 96 WHERE phase = 3;
\set VERBOSITY terse
UPDATE eros.phase SET cpu_percent = 0 WHERE phase = 1;
UPDATE eros.phase SET cpu_percent = -5 WHERE phase = 1;
UPDATE eros.phase SET cpu_percent = 'NaN' WHERE phase = 1;
UPDATE eros.phase SET batch_size = 0 WHERE phase = 1;
UPDATE eros.phase SET batch_size = 1001 WHERE phase = 1;
UPDATE eros.phase SET idle_after = '0' WHERE phase = 1;
UPDATE eros.phase SET idle_after = '-1 minute' WHERE phase = 1;
UPDATE eros.phase SET idle_after = NULL WHERE phase = 1;
INSERT INTO eros.phase VALUES (0, '1 s', 5, 10);
INSERT INTO eros.phase VALUES (9, '9 days', 5, 10);
\set VERBOSITY default
-- an INSERT of one that is there replaces it, as a restored dump does
BEGIN;
INSERT INTO eros.phase VALUES (1, '5 minutes', 10, 20);
SELECT * FROM eros.phase ORDER BY phase;
ROLLBACK;
INSERT INTO eros.phase VALUES (1, '9 days', 5, 10);
-- in any order within one statement
BEGIN;
UPDATE eros.phase SET idle_after = idle_after * 10;
UPDATE eros.phase SET idle_after = idle_after / 10;
ROLLBACK;
SELECT * FROM eros.phase ORDER BY phase;
