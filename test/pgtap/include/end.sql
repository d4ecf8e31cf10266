-- What every file ends with.
SELECT * FROM finish();
ALTER SYSTEM RESET ALL;
SELECT pg_reload_conf() AS reloaded \gset
