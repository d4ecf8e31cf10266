-- Reads the settings anew: the postmaster does so before it takes the new connection.
SELECT pg_reload_conf() AS reloaded \gset
\c
SET client_min_messages = warning;
SET search_path = public, t;
