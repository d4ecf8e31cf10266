-- The time of EROS, which a developer can move.
SELECT eros.now() AS before \gset
SELECT eros.advance_clock('1 hour') AS returned \gset
SELECT :'returned'::timestamptz - :'before'::timestamptz BETWEEN '1 hour' AND '1 hour 1 minute' AS moved,
  eros.now() - :'before'::timestamptz BETWEEN '1 hour' AND '1 hour 1 minute' AS moved;
SELECT clock_offset >= '1 hour' AS shown FROM eros.status;
SELECT eros.advance_clock('0') >= :'before'::timestamptz AS not_moved;
-- it stands, and goes again
SELECT eros.freeze_clock() AS frozen \gset
SELECT eros.now() = :'frozen' AS stands, eros.advance_clock('1 minute') - :'frozen' AS moved;
SELECT eros.thaw_clock() > :'frozen'::timestamptz + interval '1 minute' AS goes;
-- not backward, and not by what has no fixed length
SELECT eros.advance_clock('-1 second');
SELECT eros.advance_clock('1 month');
SELECT eros.advance_clock('40000 days');
SELECT eros.advance_clock(NULL);
-- superusers only
CREATE ROLE regress_eros_user;
GRANT USAGE ON SCHEMA eros TO regress_eros_user;
GRANT EXECUTE ON FUNCTION eros.advance_clock(interval), eros.thaw_clock() TO regress_eros_user;
SET ROLE regress_eros_user;
SELECT eros.advance_clock('1 hour');
SELECT eros.thaw_clock();
SELECT eros.now() IS NOT NULL AS readable;
SET eros.developer = on;
RESET ROLE;
DROP OWNED BY regress_eros_user;
DROP ROLE regress_eros_user;
