/* eros--0.1.0.sql: one section per station of the flow. */

-- complain if the script is sourced in psql rather than by CREATE EXTENSION
\echo Use "CREATE EXTENSION eros" to load this file. \quit

-- no name and no operator is looked up where others can have put something
SET LOCAL search_path = pg_catalog, pg_temp;

-- what goes without SQL knows the heap only
SET LOCAL default_table_access_method = heap;

/*
 * Everything but eros_touch lives in a schema of its own.  If the schema is
 * there already, somebody else made it, and nothing in it can be trusted: the
 * plain CREATE fails then, as it should.
 */
CREATE SCHEMA eros;
COMMENT ON SCHEMA eros IS 'EROS: precomputes expensive results for each user while he is away';

------------------------------------------------------------------------------
-- Users and time
------------------------------------------------------------------------------

CREATE FUNCTION eros.user_key(user_id bigint) RETURNS uuid
	AS 'MODULE_PATHNAME', 'eros_user_key' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION eros.user_key(bigint) IS
	'the uuid under which EROS stores a bigint user: the high half zero, the low half the number';

CREATE FUNCTION eros.user_bigint(user_key uuid) RETURNS bigint
	AS 'MODULE_PATHNAME', 'eros_user_bigint' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION eros.user_bigint(uuid) IS
	'the bigint user that a stored uuid stands for, or NULL when it is a real uuid';

CREATE FUNCTION eros.now() RETURNS timestamptz
	AS 'MODULE_PATHNAME', 'eros_now_sql' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION eros.now() IS
	'the time by which EROS goes: the clock, unless a developer has moved it with eros.advance_clock()';

CREATE FUNCTION eros.advance_clock(step interval) RETURNS timestamptz
	AS 'MODULE_PATHNAME', 'eros_advance_clock' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION eros.advance_clock(interval) IS
	'moves the time of EROS forward on the whole server, for tests: superusers only, and only with eros.developer = on; returns the new time. Error 42501 for others, 55000 without the setting, 22023 for a negative step';

CREATE FUNCTION eros.freeze_clock() RETURNS timestamptz
	AS 'MODULE_PATHNAME', 'eros_freeze_clock' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION eros.freeze_clock() IS
	'stops the time of EROS on the whole server until eros.thaw_clock() or its restart, so that only eros.advance_clock() moves it, for tests; returns the time. Same rights and errors';

CREATE FUNCTION eros.thaw_clock() RETURNS timestamptz
	AS 'MODULE_PATHNAME', 'eros_thaw_clock' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION eros.thaw_clock() IS
	'has the time of EROS go again on the whole server after eros.freeze_clock(), from where it would be had it never stood, for tests; returns the time. Same rights and errors';

------------------------------------------------------------------------------
-- Touch
------------------------------------------------------------------------------

-- One with other arguments would be called in place of ours, if they fit better.
DO $$
BEGIN
	IF EXISTS (SELECT FROM pg_proc p WHERE p.proname = 'eros_touch' AND p.pronamespace = '@extschema@'::regnamespace) THEN
		RAISE EXCEPTION 'function eros_touch exists already in schema @extschema@'
			USING ERRCODE = 'duplicate_function',
				HINT = 'Drop it, or create the extension in another schema.';
	END IF;
END $$;

CREATE FUNCTION @extschema@.eros_touch(user_id bigint) RETURNS void
	AS 'MODULE_PATHNAME', 'eros_touch_bigint' LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.eros_touch(bigint) IS
	'records that the user is active now; any work of EROS on him stops at once. NULL: nothing happens. Error 55000 when eros is not in shared_preload_libraries';

CREATE FUNCTION @extschema@.eros_touch(user_id uuid) RETURNS void
	AS 'MODULE_PATHNAME', 'eros_touch_uuid' LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.eros_touch(uuid) IS
	'records that the user is active now. NULL: nothing happens. Error 22023 for a uuid whose high half is zero, which stands for a bigint user';

CREATE FUNCTION @extschema@.eros_touch(user_id text) RETURNS void
	AS 'MODULE_PATHNAME', 'eros_touch_text' LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.eros_touch(text) IS
	'the same for a user id whose type the driver does not tell: a whole number is a bigint user, anything else a uuid. Error 22P02 when it is neither';

CREATE FUNCTION @extschema@.eros_touch(user_ids bigint[]) RETURNS void
	AS 'MODULE_PATHNAME', 'eros_touch_bigint_array' LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.eros_touch(bigint[]) IS
	'records that all these users are active now; NULL elements are skipped';

CREATE FUNCTION @extschema@.eros_touch(user_ids uuid[]) RETURNS void
	AS 'MODULE_PATHNAME', 'eros_touch_uuid_array' LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.eros_touch(uuid[]) IS
	'records that all these users are active now; NULL elements are skipped';

REVOKE ALL ON FUNCTION @extschema@.eros_touch(bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.eros_touch(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.eros_touch(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.eros_touch(bigint[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.eros_touch(uuid[]) FROM PUBLIC;

------------------------------------------------------------------------------
-- Idle users and phases
------------------------------------------------------------------------------

CREATE FUNCTION eros.config_changed() RETURNS trigger
	AS 'MODULE_PATHNAME', 'eros_config_changed' LANGUAGE C;
COMMENT ON FUNCTION eros.config_changed() IS
	'trigger: has the scheduler and the workers read phases and handlers anew when the transaction commits';

CREATE FUNCTION eros.table_emptied() RETURNS trigger
	AS 'MODULE_PATHNAME', 'eros_table_emptied' LANGUAGE C;
COMMENT ON FUNCTION eros.table_emptied() IS
	'trigger: sets what shared memory counts of the table to zero when a TRUNCATE commits';

CREATE TABLE eros.phase (
	phase smallint PRIMARY KEY CHECK (phase BETWEEN 1 AND 8),
	idle_after interval NOT NULL
		CHECK (idle_after > interval '0' AND idle_after <= interval '365 days'),
	cpu_percent double precision NOT NULL CHECK (cpu_percent > 0 AND cpu_percent <= 100),
	batch_size integer NOT NULL CHECK (batch_size BETWEEN 1 AND 1000)
);
COMMENT ON TABLE eros.phase IS 'the phases of inactivity; the administrator may change them at any time';
COMMENT ON COLUMN eros.phase.phase IS 'number of the phase, 1 to 8; a higher one begins later';
COMMENT ON COLUMN eros.phase.idle_after IS 'a user enters the phase when he has been idle for so long; must grow with the phase';
COMMENT ON COLUMN eros.phase.cpu_percent IS 'percent of one core that each worker may use for this phase; at most eros.cpu_cap';
COMMENT ON COLUMN eros.phase.batch_size IS 'users in one call of a handler, at most; 1 to 1000';

CREATE FUNCTION eros.check_phases() RETURNS trigger
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	bad record;
BEGIN
	SELECT p.phase, p.idle_after, q.phase AS next_phase, q.idle_after AS next_after
		INTO bad
		FROM eros.phase p JOIN eros.phase q ON q.phase > p.phase AND q.idle_after <= p.idle_after
		LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'phase % would not begin after phase %', bad.next_phase, bad.phase
			USING ERRCODE = 'check_violation',
				DETAIL = format('Phase %s begins after %s, phase %s after %s.',
								bad.phase, bad.idle_after, bad.next_phase, bad.next_after),
				HINT = 'idle_after must grow with the phase; change all phases in one UPDATE.';
	END IF;
	SELECT p.phase, p.cpu_percent INTO bad
		FROM eros.phase p
		WHERE p.cpu_percent > coalesce(current_setting('eros.cpu_cap', true), '95')::double precision
		LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'cpu_percent % of phase % is above the hard cap', bad.cpu_percent, bad.phase
			USING ERRCODE = 'check_violation',
				HINT = format('Use at most %s, the setting eros.cpu_cap.', coalesce(current_setting('eros.cpu_cap', true), '95'));
	END IF;
	RETURN NULL;
END $$;
COMMENT ON FUNCTION eros.check_phases() IS 'trigger: refuses phases that overlap or exceed eros.cpu_cap';

CREATE FUNCTION eros.replace_phase() RETURNS trigger
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	DELETE FROM eros.phase p WHERE p.phase = NEW.phase;
	RETURN NEW;
END $$;
COMMENT ON FUNCTION eros.replace_phase() IS
	'trigger: an INSERT of a phase that is there replaces it, so that a restored dump wins over the defaults';

CREATE TRIGGER replace_phase BEFORE INSERT ON eros.phase
	FOR EACH ROW EXECUTE FUNCTION eros.replace_phase();
CREATE TRIGGER check_phases AFTER INSERT OR UPDATE ON eros.phase
	FOR EACH STATEMENT EXECUTE FUNCTION eros.check_phases();
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON eros.phase
	FOR EACH STATEMENT EXECUTE FUNCTION eros.config_changed();

INSERT INTO eros.phase (phase, idle_after, cpu_percent, batch_size) VALUES
	(1, '10 minutes', 5, 15),
	(2, '30 minutes', 15, 75),
	(3, '60 minutes', least(95, coalesce(current_setting('eros.cpu_cap', true), '95')::double precision), 250);

CREATE UNLOGGED TABLE eros.activity (
	user_id uuid PRIMARY KEY,
	last_seen timestamptz NOT NULL,
	phase smallint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05);
COMMENT ON TABLE eros.activity IS 'one row per idle user; active users are in shared memory';
COMMENT ON COLUMN eros.activity.user_id IS 'the user''s key: a uuid, or a bigint as eros.user_key() stores it';
COMMENT ON COLUMN eros.activity.last_seen IS 'his last touch';
COMMENT ON COLUMN eros.activity.phase IS 'the phase that he has reached; 0: active, but the shared memory had no room for him';
CREATE INDEX activity_phase_idx ON eros.activity (phase, last_seen);
CREATE TRIGGER emptied AFTER TRUNCATE ON eros.activity
	FOR EACH STATEMENT EXECUTE FUNCTION eros.table_emptied();

CREATE UNLOGGED TABLE eros.spilled_touch (
	user_id uuid NOT NULL,
	last_seen timestamptz NOT NULL
);
COMMENT ON TABLE eros.spilled_touch IS
	'touches that found the shared memory full; the next sweep takes them over into eros.activity. Without a key, so that no touch waits for another';
COMMENT ON COLUMN eros.spilled_touch.user_id IS 'the user''s key';
COMMENT ON COLUMN eros.spilled_touch.last_seen IS 'when he was touched';

CREATE TABLE eros.snapshot (
	upper timestamptz PRIMARY KEY,
	lower timestamptz NOT NULL,
	users integer NOT NULL,
	packed bytea NOT NULL
);
ALTER TABLE eros.snapshot ALTER COLUMN packed SET STORAGE EXTERNAL;
COMMENT ON TABLE eros.snapshot IS
	'who was last seen when, logged and packed: restores eros.activity, which is unlogged, and the active users after a crash or a promotion. Refreshed every eros.maintenance_interval';
COMMENT ON COLUMN eros.snapshot.upper IS 'the row has those who were last seen up to this, as of when it was written; a user may be in several rows, the newest counts';
COMMENT ON COLUMN eros.snapshot.lower IS 'and after this';
COMMENT ON COLUMN eros.snapshot.users IS 'how many users';
COMMENT ON COLUMN eros.snapshot.packed IS 'the users'' keys and when they were last seen; the format is EROS''s own';

CREATE UNLOGGED TABLE eros.unlogged_mark (since timestamptz NOT NULL);
COMMENT ON TABLE eros.unlogged_mark IS
	'one row, which goes when the server empties the unlogged tables: then the scheduler restores the users from eros.snapshot';
COMMENT ON COLUMN eros.unlogged_mark.since IS 'when the tables were restored, or found empty for the first time';

CREATE FUNCTION eros.sweep() RETURNS bigint
	AS 'MODULE_PATHNAME', 'eros_sweep_sql' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION eros.sweep() IS
	'does now what the scheduler does from time to time: moves users who crossed a threshold and creates their jobs; returns the number of crossings. It takes effect when the transaction commits';

------------------------------------------------------------------------------
-- Handlers
------------------------------------------------------------------------------

CREATE TYPE eros.user_type AS ENUM ('bigint', 'uuid');
COMMENT ON TYPE eros.user_type IS 'the kind of user ids that a handler takes';

CREATE TABLE eros.handler (
	handler_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name text NOT NULL UNIQUE CHECK (name <> '' AND octet_length(name) <= 63),
	function text NOT NULL,
	function_oid oid NOT NULL,
	user_type eros.user_type NOT NULL,
	phase smallint NOT NULL REFERENCES eros.phase ON UPDATE CASCADE,
	ttl interval NOT NULL CHECK (ttl >= interval '1 second' AND ttl <= interval '365 days'),
	bucket smallint NOT NULL,
	max_attempts integer NOT NULL CHECK (max_attempts BETWEEN 1 AND 100),
	timeout interval NOT NULL CHECK (timeout >= interval '1 millisecond' AND timeout <= interval '1 day'),
	owner regrole NOT NULL,
	enabled boolean NOT NULL,
	error text,
	error_at timestamptz,
	crashes smallint NOT NULL DEFAULT 0,
	crashed_at timestamptz
);
COMMENT ON TABLE eros.handler IS 'the registered handlers; changed by eros.add_handler() and its like only';
COMMENT ON COLUMN eros.handler.handler_id IS 'its number, in jobs and cache entries';
COMMENT ON COLUMN eros.handler.name IS 'its name, by which eros.get() finds its results; at most 63 bytes';
COMMENT ON COLUMN eros.handler.function IS 'the function that it calls, with schema and argument type';
COMMENT ON COLUMN eros.handler.function_oid IS 'the function''s oid when it was registered';
COMMENT ON COLUMN eros.handler.user_type IS 'the kind of user ids that it takes: bigint or uuid';
COMMENT ON COLUMN eros.handler.phase IS 'the phase in which it runs';
COMMENT ON COLUMN eros.handler.ttl IS 'lifetime of its results; 1 second to 365 days';
COMMENT ON COLUMN eros.handler.bucket IS 'class of cache partitions that hold its results: each spans 2^bucket hours';
COMMENT ON COLUMN eros.handler.max_attempts IS 'a job that failed so often is set to failed; 1 to 100';
COMMENT ON COLUMN eros.handler.timeout IS 'a call that takes longer is cancelled and counts as a failure; 1 ms to 1 day';
COMMENT ON COLUMN eros.handler.owner IS 'the role that registered it, as which it runs';
COMMENT ON COLUMN eros.handler.enabled IS 'whether jobs are created and run';
COMMENT ON COLUMN eros.handler.error IS 'why it cannot be called at all, or that it crashed the server and was disabled for that; NULL when it can';
COMMENT ON COLUMN eros.handler.error_at IS 'since when';
COMMENT ON COLUMN eros.handler.crashes IS 'how often the server crashed in a call of it, each within a day of the one before; at the second time it is disabled';
COMMENT ON COLUMN eros.handler.crashed_at IS 'when it did so last';

CREATE TRIGGER config_changed
	AFTER INSERT OR DELETE OR TRUNCATE
		OR UPDATE OF name, function, function_oid, user_type, phase, ttl, bucket, max_attempts, timeout, owner, enabled
	ON eros.handler
	FOR EACH STATEMENT EXECUTE FUNCTION eros.config_changed();

CREATE FUNCTION eros.add_handler(
	name text,
	function text,
	phase integer,
	ttl interval DEFAULT '24 hours',
	max_attempts integer DEFAULT 5,
	timeout interval DEFAULT '1 minute',
	enabled boolean DEFAULT true,
	replace boolean DEFAULT false) RETURNS integer
	AS 'MODULE_PATHNAME', 'eros_add_handler' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION eros.add_handler(text, text, integer, interval, integer, interval, boolean, boolean) IS
	'registers a function as a handler, to run as the calling role; returns its handler_id. The function takes (user_ids bigint[]) or (user_ids uuid[]) and returns TABLE (user_id bigint or uuid, value jsonb). With replace => true a handler of this name is changed. Errors: 42883 no such function, 42P13 wrong signature, 42501 no right to execute it, 42710 name taken, 22023 value out of range';

CREATE FUNCTION eros.drop_handler(name text) RETURNS void
	AS 'MODULE_PATHNAME', 'eros_drop_handler' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION eros.drop_handler(text) IS
	'removes a handler with its jobs and its results; its owner or a superuser may. Error 42704 when there is none of this name';

CREATE FUNCTION eros.enable_handler(name text) RETURNS void
	AS 'MODULE_PATHNAME', 'eros_enable_handler' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION eros.enable_handler(text) IS 'lets a disabled handler run again';

CREATE FUNCTION eros.disable_handler(name text) RETURNS void
	AS 'MODULE_PATHNAME', 'eros_disable_handler' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION eros.disable_handler(text) IS
	'creates and runs no more jobs of the handler; what is pending stays, results stay until they expire';

------------------------------------------------------------------------------
-- Queue
------------------------------------------------------------------------------

CREATE TYPE eros.job_status AS ENUM ('pending', 'failed');
COMMENT ON TYPE eros.job_status IS 'pending: to be run at due_at; failed: out of attempts, see eros.retry(). Which jobs run now is in eros.status_worker';

CREATE TABLE eros.job (
	user_id uuid NOT NULL,
	handler_id integer NOT NULL,
	phase smallint NOT NULL,
	attempts smallint NOT NULL DEFAULT 0,
	due_at timestamptz NOT NULL,
	status eros.job_status NOT NULL DEFAULT 'pending',
	last_error text,
	PRIMARY KEY (user_id, handler_id)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
COMMENT ON TABLE eros.job IS 'what is to be computed: one job per user and handler; a finished job is deleted';
COMMENT ON COLUMN eros.job.user_id IS 'the user''s key';
COMMENT ON COLUMN eros.job.handler_id IS 'the handler to call';
COMMENT ON COLUMN eros.job.phase IS 'the phase whose CPU share pays for it';
COMMENT ON COLUMN eros.job.attempts IS 'how often it has failed';
COMMENT ON COLUMN eros.job.due_at IS 'when it may run: at once, or after a failure the next try';
COMMENT ON COLUMN eros.job.status IS 'pending or failed';
COMMENT ON COLUMN eros.job.last_error IS 'message of the last failure';
CREATE INDEX job_pending_idx ON eros.job (phase, handler_id, due_at) WHERE status = 'pending';
CREATE TRIGGER emptied AFTER TRUNCATE ON eros.job
	FOR EACH STATEMENT EXECUTE FUNCTION eros.table_emptied();

CREATE FUNCTION eros.retry(handler text) RETURNS bigint
	AS 'MODULE_PATHNAME', 'eros_retry' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION eros.retry(text) IS
	'puts the failed jobs of a handler back to pending, with their attempts at zero; returns how many';

------------------------------------------------------------------------------
-- Cache
------------------------------------------------------------------------------

CREATE TABLE eros.cache (
	user_id uuid NOT NULL,
	computed_at timestamptz NOT NULL,
	expires_at timestamptz NOT NULL,
	handler_id integer NOT NULL,
	bucket smallint NOT NULL,
	value jsonb NOT NULL
) PARTITION BY RANGE (bucket, expires_at);
COMMENT ON TABLE eros.cache IS 'the last result per user and handler, in partitions by expiry';
COMMENT ON COLUMN eros.cache.user_id IS 'the user''s key';
COMMENT ON COLUMN eros.cache.computed_at IS 'when it was computed and stored';
COMMENT ON COLUMN eros.cache.expires_at IS 'computed_at plus the handler''s ttl';
COMMENT ON COLUMN eros.cache.handler_id IS 'the handler that computed it';
COMMENT ON COLUMN eros.cache.bucket IS 'class of partitions: each spans 2^bucket hours, about a quarter of the ttl';
COMMENT ON COLUMN eros.cache.value IS 'the result; at most eros.max_result_size bytes';

-- Out of line, a value takes several look-ups more: only what does not fit into a page goes there.
ALTER TABLE eros.cache ALTER COLUMN value SET STORAGE MAIN;

-- Values are compressed with LZ4 where the server can.
DO $$
BEGIN
	EXECUTE 'ALTER TABLE eros.cache ALTER COLUMN value SET COMPRESSION lz4';
EXCEPTION WHEN feature_not_supported OR syntax_error OR invalid_parameter_value THEN
	NULL;
END $$;

CREATE FUNCTION eros.get(handler text, user_id bigint) RETURNS jsonb
	AS 'MODULE_PATHNAME', 'eros_get_bigint' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION eros.get(text, bigint) IS
	'the user''s result of this handler, or NULL when there is none that has not expired. Error 42704 when there is no such handler';

CREATE FUNCTION eros.get(handler text, user_id uuid) RETURNS jsonb
	AS 'MODULE_PATHNAME', 'eros_get_uuid' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION eros.get(text, uuid) IS
	'the user''s result of this handler, or NULL when there is none that has not expired';

CREATE FUNCTION eros.get(handler text, user_id text) RETURNS jsonb
	AS 'MODULE_PATHNAME', 'eros_get_text' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION eros.get(text, text) IS
	'the same for a user id whose type the driver does not tell: a whole number is a bigint user, anything else a uuid';

CREATE FUNCTION eros.get_many(handler text, user_ids bigint[])
	RETURNS TABLE (user_id bigint, value jsonb)
	AS 'MODULE_PATHNAME', 'eros_get_many_bigint' LANGUAGE C STABLE STRICT PARALLEL SAFE ROWS 100;
COMMENT ON FUNCTION eros.get_many(text, bigint[]) IS
	'the results of this handler for these users; no row for a user without a result, NULL elements are skipped';

CREATE FUNCTION eros.get_many(handler text, user_ids uuid[])
	RETURNS TABLE (user_id uuid, value jsonb)
	AS 'MODULE_PATHNAME', 'eros_get_many_uuid' LANGUAGE C STABLE STRICT PARALLEL SAFE ROWS 100;
COMMENT ON FUNCTION eros.get_many(text, uuid[]) IS
	'the results of this handler for these users; no row for a user without a result, NULL elements are skipped';

CREATE FUNCTION eros.invalidate(handler text, user_id bigint) RETURNS boolean
	AS 'MODULE_PATHNAME', 'eros_invalidate_bigint' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION eros.invalidate(text, bigint) IS
	'deletes the user''s result of this handler; returns whether there was one';

CREATE FUNCTION eros.invalidate(handler text, user_id uuid) RETURNS boolean
	AS 'MODULE_PATHNAME', 'eros_invalidate_uuid' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION eros.invalidate(text, uuid) IS
	'deletes the user''s result of this handler; returns whether there was one';

CREATE FUNCTION eros.invalidate(handler text, user_id text) RETURNS boolean
	AS 'MODULE_PATHNAME', 'eros_invalidate_text' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION eros.invalidate(text, text) IS
	'the same for a user id whose type the driver does not tell: a whole number is a bigint user, anything else a uuid';

CREATE FUNCTION eros.run_now(handler text, user_id bigint) RETURNS jsonb
	AS 'MODULE_PATHNAME', 'eros_run_now_bigint' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION eros.run_now(text, bigint) IS
	'for development: calls the handler for one user now, in this session but as a worker would (the handler''s owner, restricted, safe search_path), stores the result and returns it; its error is shown. The handler''s owner or a superuser may';

CREATE FUNCTION eros.run_now(handler text, user_id uuid) RETURNS jsonb
	AS 'MODULE_PATHNAME', 'eros_run_now_uuid' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION eros.run_now(text, uuid) IS
	'for development: calls the handler for one user now, stores the result and returns it';

CREATE FUNCTION eros.run_now(handler text, user_id text) RETURNS jsonb
	AS 'MODULE_PATHNAME', 'eros_run_now_text' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION eros.run_now(text, text) IS
	'the same for a user id whose type the driver does not tell: a whole number is a bigint user, anything else a uuid';

CREATE FUNCTION eros.cache_partitions(
	OUT partition regclass, OUT bucket smallint, OUT lower timestamptz, OUT upper timestamptz,
	OUT bytes bigint) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'eros_cache_partitions' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION eros.cache_partitions() IS
	'the partitions of the cache with their bounds and the bytes of live results in each, as accounted since the start';

CREATE FUNCTION eros.account_cache_bytes(partition regclass, handler_id integer, bytes bigint) RETURNS void
	AS 'MODULE_PATHNAME', 'eros_account_cache_bytes' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION eros.account_cache_bytes(regclass, integer, bigint) IS
	'internal: adds bytes (or takes them off) to the account of a partition and to that of a handler in it, when the transaction commits; handler NULL: nothing is left in the partition';

CREATE FUNCTION eros.close_partition(bucket smallint, upper timestamptz) RETURNS void
	AS 'MODULE_PATHNAME', 'eros_close_partition' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION eros.close_partition(smallint, timestamptz) IS
	'internal: counts the results of a partition that is about to be dropped and were never read';

------------------------------------------------------------------------------
-- Maintenance: by pg_cron where there is one, else by the scheduler
------------------------------------------------------------------------------

CREATE FUNCTION eros.create_partitions() RETURNS integer
	-- whatever the session's settings: names and bounds, and where and how the partitions are stored
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO' SET timezone = 'UTC'
	SET default_table_access_method = 'heap' SET default_tablespace = '' AS $$
DECLARE
	b smallint;
	width double precision;
	lower timestamptz;
	upper timestamptz;
	part name;
	created integer := 0;
BEGIN
	FOR b IN SELECT DISTINCT h.bucket FROM eros.handler h ORDER BY 1 LOOP
		width := 3600 * power(2, b);
		-- a ttl is at most four widths, so its results end in one of five
		-- partitions; one more is kept ahead
		FOR i IN 0..5 LOOP
			lower := to_timestamp((floor(extract(epoch FROM eros.now()) / width) + i) * width);
			upper := to_timestamp((floor(extract(epoch FROM eros.now()) / width) + i + 1) * width);
			part := format('cache_b%s_%s', b, to_char(lower AT TIME ZONE 'UTC', 'YYYYMMDD_HH24'));
			CONTINUE WHEN to_regclass(format('eros.%I', part)) IS NOT NULL;
			IF created = 0 THEN
				-- one at a time; readers and writers of the cache go on
				LOCK TABLE eros.cache IN SHARE UPDATE EXCLUSIVE MODE;
				CONTINUE WHEN to_regclass(format('eros.%I', part)) IS NOT NULL;
			END IF;
			EXECUTE format('CREATE TABLE eros.%I (LIKE eros.cache INCLUDING ALL)', part);
			EXECUTE format('CREATE UNIQUE INDEX %I ON eros.%I (handler_id, user_id)', part || '_key', part);
			-- or a publication FOR ALL TABLES would not let us delete
			EXECUTE format('ALTER TABLE eros.%I REPLICA IDENTITY USING INDEX %I', part, part || '_key');
			EXECUTE format('ALTER TABLE eros.cache ATTACH PARTITION eros.%I FOR VALUES FROM (%s, %L) TO (%s, %L)',
						   part, b, lower, b, upper);
			EXECUTE format('ALTER EXTENSION eros ADD TABLE eros.%I', part);
			-- whoever calls this: a superuser may
			EXECUTE format('ALTER TABLE eros.%I OWNER TO %I', part,
						   (SELECT pg_get_userbyid(c.relowner) FROM pg_class c WHERE c.oid = 'eros.cache'::regclass));
			created := created + 1;
		END LOOP;
	END LOOP;
	RETURN created;
END $$;
COMMENT ON FUNCTION eros.create_partitions() IS
	'creates the cache partitions that results may need soon; returns how many it created';

CREATE FUNCTION eros.drop_partition(partition regclass, bucket smallint, upper timestamptz, bytes bigint)
	RETURNS boolean
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' AS $$
BEGIN
	-- who reads the cache keeps the partition a while longer; nobody waits for us
	LOCK TABLE eros.cache IN ACCESS EXCLUSIVE MODE;
	-- somebody else may have dropped it: whatever the snapshot says, it has no name then
	IF partition::text = partition::oid::text OR NOT EXISTS (
		SELECT FROM pg_inherits i WHERE i.inhrelid = partition AND i.inhparent = 'eros.cache'::regclass) THEN
		RETURN false;
	END IF;
	EXECUTE format('ALTER EXTENSION eros DROP TABLE %s', partition);
	EXECUTE format('DROP TABLE %s', partition);
	PERFORM eros.close_partition(bucket, upper);
	-- after that, which has closed what handlers had in it
	PERFORM eros.account_cache_bytes(partition, NULL, -bytes);
	RETURN true;
EXCEPTION WHEN lock_not_available OR undefined_table THEN
	RETURN false;
END $$;
COMMENT ON FUNCTION eros.drop_partition(regclass, smallint, timestamptz, bigint) IS
	'internal: drops a partition of the cache, or returns false when somebody uses it';

CREATE FUNCTION eros.purge() RETURNS integer
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	p record;
	purged integer := 0;
BEGIN
	FOR p IN SELECT * FROM eros.cache_partitions() c WHERE c.upper <= eros.now() ORDER BY c.upper LOOP
		EXIT WHEN NOT eros.drop_partition(p.partition, p.bucket, p.upper, p.bytes);
		purged := purged + 1;
	END LOOP;
	RETURN purged;
END $$;
COMMENT ON FUNCTION eros.purge() IS
	'drops the cache partitions whose results have all expired; returns how many. What somebody reads at the moment is left for the next time';

CREATE FUNCTION eros.evict_entries(partition regclass, doomed tid[], OUT entries bigint, OUT bytes bigint) RETURNS record
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	of_handler integer;
	gone bigint;
	freed bigint;
BEGIN
	IF NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = partition AND i.inhparent = 'eros.cache'::regclass) THEN
		RAISE EXCEPTION '% is no partition of eros.cache', partition USING ERRCODE = 'wrong_object_type';
	END IF;
	entries := 0;
	bytes := 0;
	FOR of_handler, gone, freed IN EXECUTE format($sql$
		WITH gone AS (
			DELETE FROM %1$s c WHERE c.ctid = ANY (ARRAY(
				SELECT d.ctid FROM %1$s d WHERE d.ctid = ANY ($1) FOR UPDATE SKIP LOCKED))
			RETURNING c.handler_id, eros.entry_bytes(c.value) AS bytes
		)
		SELECT g.handler_id, count(*), sum(g.bytes)::bigint FROM gone g GROUP BY 1$sql$, partition) USING doomed
	LOOP
		entries := entries + gone;
		bytes := bytes + freed;
		PERFORM eros.account_cache_bytes(partition, of_handler, -freed);
	END LOOP;
END $$;
COMMENT ON FUNCTION eros.evict_entries(regclass, tid[]) IS
	'internal: deletes entries of a partition of the cache, but for those that somebody changes at the moment; returns how many, and their bytes';

CREATE FUNCTION eros.evict() RETURNS bigint
	-- a scan begins at the first page
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET synchronize_seqscans = off AS $$
DECLARE
	-- a little below the limit, so as not to be back at once
	excess bigint;
	p record;
	entry_id tid;
	entry_size bigint;
	doomed tid[];
	doomed_bytes bigint;
	gone record;
	evicted bigint := 0;
BEGIN
	SELECT sum(c.bytes) INTO excess FROM eros.cache_partitions() c;
	IF current_setting('eros.cache_limit') = '0' THEN
		RETURN 0;
	END IF;
	excess := excess - pg_size_bytes(current_setting('eros.cache_limit')) * 0.95;
	FOR p IN SELECT * FROM eros.cache_partitions() c WHERE c.bytes > 0 ORDER BY c.upper LOOP
		EXIT WHEN excess <= 0;
		IF p.bytes <= excess AND eros.drop_partition(p.partition, p.bucket, p.upper, p.bytes) THEN
			-- the lock that it took is not kept for longer than it must
			RETURN evicted + 1;
		END IF;
		-- so that nobody drops it before we have read it
		BEGIN
			LOCK TABLE eros.cache IN ACCESS SHARE MODE; -- first, as others do
			EXECUTE format('LOCK TABLE %s IN ROW EXCLUSIVE MODE', p.partition);
		EXCEPTION WHEN undefined_table OR syntax_error THEN
			excess := excess - p.bytes; -- it is gone
			CONTINUE;
		END;
		doomed := '{}';
		doomed_bytes := 0;
		FOR entry_id, entry_size IN EXECUTE format('SELECT c.ctid, eros.entry_bytes(c.value) FROM %s c', p.partition) LOOP
			doomed := doomed || entry_id;
			doomed_bytes := doomed_bytes + entry_size;
			CONTINUE WHEN doomed_bytes < excess AND cardinality(doomed) < 10000;
			gone := eros.evict_entries(p.partition, doomed);
			p.bytes := p.bytes - gone.bytes;
			excess := excess - gone.bytes;
			evicted := evicted + gone.entries;
			doomed := '{}';
			doomed_bytes := 0;
			EXIT WHEN excess <= 0;
		END LOOP;
		CONTINUE WHEN excess <= 0;
		gone := eros.evict_entries(p.partition, doomed);
		p.bytes := p.bytes - gone.bytes;
		evicted := evicted + gone.entries;
		-- what is left in its account is not there: the sizes on disk that stand in after a restart, or what
		-- somebody has emptied by TRUNCATE
		PERFORM eros.account_cache_bytes(p.partition, NULL, -greatest(p.bytes, 0));
		excess := excess - gone.bytes - greatest(p.bytes, 0);
	END LOOP;
	RETURN evicted;
END $$;
COMMENT ON FUNCTION eros.evict() IS
	'when the cache is above eros.cache_limit, deletes results until it is below: of the partition that expires first, in the order in which they are stored, and then of the next. Or drops the partition that expires first and returns, to be called again. Returns how many entries (a dropped partition counts as one)';

CREATE FUNCTION eros.entry_bytes(value jsonb) RETURNS bigint
	LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
	-- tuple header and line pointer 28, fixed columns 40, an entry in an index that is 70 % full 52
	AS 'SELECT pg_column_size(value)::bigint + 120';
COMMENT ON FUNCTION eros.entry_bytes(jsonb) IS
	'what a cache entry takes on disk, in bytes: the stored value and 120 bytes of row and index entry';

CREATE FUNCTION eros.clean_up() RETURNS bigint
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	stale uuid[];
	cleaned bigint := 0;
BEGIN
	PERFORM eros.now();
	LOOP
		WITH gone AS (
			DELETE FROM eros.activity a WHERE a.ctid = ANY (ARRAY(
				SELECT s.ctid FROM eros.activity s
				WHERE s.phase = (SELECT max(p.phase) FROM eros.phase p)
				  AND s.last_seen < eros.now() - current_setting('eros.max_idle')::interval
				ORDER BY s.last_seen LIMIT 1000 FOR UPDATE SKIP LOCKED))
			RETURNING a.user_id)
		SELECT array_agg(gone.user_id) INTO stale FROM gone;
		EXIT WHEN stale IS NULL;
		PERFORM eros.forget_users(stale);
		cleaned := cleaned + cardinality(stale);
	END LOOP;
	-- whose number a role of another server might have, after a dump and restore; an UPDATE that finds
	-- nobody would have everybody read the configuration anew
	IF EXISTS (SELECT FROM eros.handler h
			   WHERE h.owner <> 0::oid AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = h.owner)) THEN
		UPDATE eros.handler h
			SET enabled = false, owner = 0::oid,
				error = format('the owner of handler "%s" does not exist any more', h.name),
				error_at = coalesce(h.error_at, eros.now())
			WHERE h.owner <> 0::oid AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = h.owner);
	END IF;
	PERFORM eros.maintenance_done();
	RETURN cleaned;
END $$;
COMMENT ON FUNCTION eros.clean_up() IS
	'deletes the users who have been idle for longer than eros.max_idle, with their jobs and results; disables handlers whose owner is gone; returns how many users';

CREATE FUNCTION eros.forget_users(user_keys uuid[]) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	gone record;
BEGIN
	FOR gone IN
		WITH j AS (
			DELETE FROM eros.job j WHERE j.user_id = ANY (user_keys) RETURNING j.handler_id, j.status)
		SELECT j.handler_id, j.status, count(*) AS jobs FROM j GROUP BY 1, 2
	LOOP
		PERFORM eros.account_jobs(gone.handler_id, gone.status, -gone.jobs);
	END LOOP;
	FOR gone IN
		WITH c AS (
			DELETE FROM eros.cache c
			WHERE c.handler_id = ANY (ARRAY(SELECT h.handler_id FROM eros.handler h))
			  AND c.user_id = ANY (user_keys)
			RETURNING c.tableoid, c.handler_id, eros.entry_bytes(c.value) AS bytes)
		SELECT c.tableoid, c.handler_id, sum(c.bytes)::bigint AS bytes FROM c GROUP BY 1, 2
	LOOP
		PERFORM eros.account_cache_bytes(gone.tableoid, gone.handler_id, -gone.bytes);
	END LOOP;
	PERFORM eros.account_users((SELECT max(p.phase) FROM eros.phase p), -cardinality(user_keys));
END $$;
COMMENT ON FUNCTION eros.forget_users(uuid[]) IS 'internal: deletes the jobs and results of stale users';

CREATE FUNCTION eros.account_jobs(handler_id integer, status eros.job_status, jobs bigint) RETURNS void
	AS 'MODULE_PATHNAME', 'eros_account_jobs' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION eros.account_jobs(integer, eros.job_status, bigint) IS
	'internal: adds to the counted jobs of a handler when the transaction commits';

CREATE FUNCTION eros.account_users(phase smallint, users bigint) RETURNS void
	AS 'MODULE_PATHNAME', 'eros_account_users' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION eros.account_users(smallint, bigint) IS
	'internal: adds to the counted users of a phase when the transaction commits';

CREATE FUNCTION eros.maintenance_done() RETURNS void
	AS 'MODULE_PATHNAME', 'eros_maintenance_done' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION eros.maintenance_done() IS
	'internal: notes when the last maintenance was, so that the scheduler does it when pg_cron does not';

CREATE FUNCTION eros.use_pg_cron() RETURNS text
	AS 'MODULE_PATHNAME', 'eros_use_pg_cron' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION eros.use_pg_cron() IS
	'has purge, partition creation and stale clean-up of this database scheduled in pg_cron, wherever in the server that is installed; returns where. Error 55000 when pg_cron is not loaded or not installed';

------------------------------------------------------------------------------
-- Pause
------------------------------------------------------------------------------

CREATE FUNCTION eros.pause() RETURNS void
	AS 'MODULE_PATHNAME', 'eros_pause' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION eros.pause() IS
	'stops the work on handlers in this database at once, halting what runs, until eros.resume() or the server''s restart; touches, sweeps and eros.get() go on. It does not wait for the end of the transaction';

CREATE FUNCTION eros.resume() RETURNS void
	AS 'MODULE_PATHNAME', 'eros_resume' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION eros.resume() IS 'lets the work on handlers go on after eros.pause()';

------------------------------------------------------------------------------
-- Status
------------------------------------------------------------------------------

CREATE FUNCTION eros.library_version() RETURNS text
	AS 'MODULE_PATHNAME', 'eros_library_version' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION eros.library_version() IS
	'the version of the loaded library; EROS works where the extension has the same';

CREATE FUNCTION eros.database_info(
	OUT scheduler_pid integer, OUT held boolean, OUT no_worker_slot boolean, OUT by_pg_cron boolean,
	OUT workers integer, OUT active_users bigint, OUT touches_spilled bigint, OUT touches_lost bigint,
	OUT users_spilled bigint, OUT returns bigint, OUT halts bigint, OUT scheduler_cpu_ms double precision,
	OUT last_sweep timestamptz, OUT last_maintenance timestamptz, OUT cache_bytes bigint,
	OUT tracker_users bigint, OUT tracker_capacity bigint, OUT tracker_bytes bigint,
	OUT tracker_limit_bytes bigint, OUT launcher_pid integer, OUT clock_offset interval,
	OUT stats_since timestamptz, OUT evicted bigint, OUT paused boolean, OUT gave_way bigint,
	OUT known boolean, OUT away boolean, OUT waiting_since timestamptz, OUT failed_starts integer,
	OUT failed_rounds integer, OUT sqlstate text, OUT scheduler_since timestamptz, OUT served_since timestamptz) RETURNS record
	AS 'MODULE_PATHNAME', 'eros_database_info' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION eros.database_info() IS 'internal: what shared memory knows of this database; see eros.status';

CREATE FUNCTION eros.databases_info(
	OUT database oid, OUT scheduler_pid integer, OUT workers integer, OUT held boolean, OUT no_worker_slot boolean,
	OUT paused boolean, OUT turns bigint, OUT longest_wait_ms double precision, OUT needed_at timestamptz,
	OUT away boolean, OUT waiting_since timestamptz, OUT failed_starts integer, OUT failed_rounds integer,
	OUT sqlstate text) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'eros_databases_info' LANGUAGE C VOLATILE ROWS 10;
COMMENT ON FUNCTION eros.databases_info() IS 'internal: how each database of the server is served; see eros.status_database';

CREATE FUNCTION eros.phase_info(
	OUT phase smallint, OUT users bigint, OUT transitions bigint, OUT batches bigint, OUT users_done bigint,
	OUT cpu_granted_ms double precision, OUT cpu_used_ms double precision, OUT cpu_yielded_ms double precision,
	OUT throttled_ms double precision, OUT debt_ms double precision)
	RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'eros_phase_info' LANGUAGE C VOLATILE ROWS 3;
COMMENT ON FUNCTION eros.phase_info() IS 'internal: the counters of the phases; see eros.status_phase';

CREATE FUNCTION eros.handler_info(
	OUT handler_id integer, OUT pending bigint, OUT failed bigint, OUT batches bigint, OUT users_done bigint,
	OUT batches_failed bigint, OUT batches_halted bigint, OUT cpu_used_ms double precision,
	OUT cpu_halted_ms double precision, OUT cost_ms double precision, OUT stored bigint, OUT hits bigint,
	OUT misses bigint, OUT unread bigint, OUT ended bigint, OUT suspended_until timestamptz, OUT counted boolean) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'eros_handler_info' LANGUAGE C VOLATILE ROWS 10;
COMMENT ON FUNCTION eros.handler_info() IS 'internal: the counters of the handlers; see eros.status_handler';

CREATE FUNCTION eros.worker_info(
	OUT worker integer, OUT pid integer, OUT activity text, OUT handler_id integer, OUT phase smallint,
	OUT batch_users integer, OUT batch_start timestamptz, OUT started timestamptz, OUT batches bigint,
	OUT users_done bigint, OUT cpu_used_ms double precision, OUT grant_percent double precision,
	OUT waited_percent double precision, OUT snapshot_start timestamptz) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'eros_worker_info' LANGUAGE C VOLATILE ROWS 5;
COMMENT ON FUNCTION eros.worker_info() IS 'internal: the workers of this database; see eros.status_worker';

CREATE FUNCTION eros.halt_info(
	OUT halts bigint, OUT p50_ms double precision, OUT p99_ms double precision, OUT max_ms double precision,
	OUT forced bigint, OUT sum_ms double precision, OUT slow bigint) RETURNS record
	AS 'MODULE_PATHNAME', 'eros_halt_info' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION eros.halt_info() IS 'internal: the latencies of halts; see eros.status_halt';

CREATE FUNCTION eros.halt_histogram(OUT upper_ms double precision, OUT halts bigint) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'eros_halt_histogram' LANGUAGE C VOLATILE ROWS 19;
COMMENT ON FUNCTION eros.halt_histogram() IS
	'how many halts by returning users took at most upper_ms ms, since the server''s start; bounds from 0.064 ms to 8388.608 ms, doubling, and at last NULL: all of them';

CREATE FUNCTION eros.halt_recent_info(
	OUT halted_at timestamptz, OUT reason text, OUT handler_id integer, OUT phase smallint, OUT worker integer,
	OUT batch_users integer, OUT latency_ms double precision) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'eros_halt_recent_info' LANGUAGE C VOLATILE ROWS 16;
COMMENT ON FUNCTION eros.halt_recent_info() IS 'internal: the last halts; see eros.status_halt_recent';

CREATE FUNCTION eros.cpu_cores() RETURNS double precision
	AS 'MODULE_PATHNAME', 'eros_cpu_cores_counted' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION eros.cpu_cores() IS
	'the cores of which eros.cpu_cap is a percentage: the setting eros.cpu_cores or, when that is 0, all that are online, or the CPU quota of the server''s control group where that is less';

CREATE VIEW eros.status_phase AS
	SELECT p.phase, p.idle_after, p.cpu_percent, p.batch_size,
		   coalesce(i.users, 0) AS users,
		   coalesce(i.transitions, 0) AS transitions,
		   coalesce(q.pending, 0) AS jobs_pending,
		   coalesce(i.batches, 0) AS batches,
		   coalesce(i.users_done, 0) AS users_done,
		   coalesce(i.cpu_granted_ms, 0) AS cpu_granted_ms,
		   coalesce(i.cpu_used_ms, 0) AS cpu_used_ms,
		   coalesce(i.cpu_yielded_ms, 0) AS cpu_yielded_ms,
		   coalesce(i.throttled_ms, 0) AS throttled_ms,
		   coalesce(i.debt_ms, 0) AS debt_ms,
		   (SELECT round(avg(w.waited_percent)::numeric, 1)::double precision FROM eros.worker_info() w) AS contention_percent
	FROM eros.phase p
	LEFT JOIN eros.phase_info() i USING (phase)
	LEFT JOIN (SELECT h.phase, sum(hi.pending)::bigint AS pending
			   FROM eros.handler h JOIN eros.handler_info() hi USING (handler_id) GROUP BY 1) q USING (phase)
	ORDER BY p.phase;
COMMENT ON VIEW eros.status_phase IS 'per phase: users, jobs, CPU granted and used, since the server''s start';
COMMENT ON COLUMN eros.status_phase.phase IS 'number of the phase';
COMMENT ON COLUMN eros.status_phase.idle_after IS 'idle time after which it begins';
COMMENT ON COLUMN eros.status_phase.cpu_percent IS 'percent of one core that each worker may use';
COMMENT ON COLUMN eros.status_phase.batch_size IS 'users in a batch, at most';
COMMENT ON COLUMN eros.status_phase.users IS 'idle users in this phase now';
COMMENT ON COLUMN eros.status_phase.transitions IS 'crossings into this phase';
COMMENT ON COLUMN eros.status_phase.jobs_pending IS 'pending jobs of the phase''s handlers';
COMMENT ON COLUMN eros.status_phase.batches IS 'calls of handlers';
COMMENT ON COLUMN eros.status_phase.users_done IS 'users whose job was finished';
COMMENT ON COLUMN eros.status_phase.cpu_granted_ms IS 'CPU time granted while there was work, in ms: cpu_percent of that time, less what was yielded';
COMMENT ON COLUMN eros.status_phase.cpu_used_ms IS 'CPU time used by batches, in ms';
COMMENT ON COLUMN eros.status_phase.cpu_yielded_ms IS 'CPU time of the share that was left to others because the machine was contended, in ms';
COMMENT ON COLUMN eros.status_phase.throttled_ms IS 'time that workers waited although jobs were due, in ms';
COMMENT ON COLUMN eros.status_phase.debt_ms IS 'for how long its workers have to pause yet for what they have used, in ms; of the worker number that owes the most. A call that cannot be paced owes what it used beyond the share; at most ten minutes, by the full share';
COMMENT ON COLUMN eros.status_phase.contention_percent IS 'part of their running time for which the workers last had to wait for a CPU, in percent, on average, by the kernel''s schedstat; NULL: no worker runs';

CREATE VIEW eros.status_handler AS
	SELECT h.name AS handler, h.function, h.phase, h.enabled, h.owner, h.ttl,
		   coalesce(i.pending, 0) AS jobs_pending,
		   coalesce(i.failed, 0) AS jobs_failed,
		   coalesce(i.batches, 0) AS batches,
		   coalesce(i.users_done, 0) AS users_done,
		   coalesce(i.batches_failed, 0) AS batches_failed,
		   coalesce(i.batches_halted, 0) AS batches_halted,
		   coalesce(i.cpu_used_ms, 0) AS cpu_used_ms,
		   coalesce(i.cpu_halted_ms, 0) AS cpu_halted_ms,
		   i.cost_ms,
		   coalesce(i.stored, 0) AS results_stored,
		   coalesce(i.hits, 0) AS hits,
		   coalesce(i.misses, 0) AS misses,
		   CASE WHEN i.hits + i.misses > 0 THEN round(100.0 * i.hits / (i.hits + i.misses), 1) END AS hit_percent,
		   coalesce(i.ended, 0) AS results_expired,
		   coalesce(i.unread, 0) AS results_unread,
		   h.error, h.error_at, i.suspended_until, coalesce(i.counted, false) AS counted
	FROM eros.handler h LEFT JOIN eros.handler_info() i USING (handler_id)
	ORDER BY h.phase, h.name;
COMMENT ON VIEW eros.status_handler IS 'per handler: done, failed, cost, hit rate, since the server''s start';
COMMENT ON COLUMN eros.status_handler.handler IS 'its name';
COMMENT ON COLUMN eros.status_handler.function IS 'the function that it calls';
COMMENT ON COLUMN eros.status_handler.phase IS 'the phase in which it runs';
COMMENT ON COLUMN eros.status_handler.enabled IS 'whether it runs';
COMMENT ON COLUMN eros.status_handler.owner IS 'the role as which it runs';
COMMENT ON COLUMN eros.status_handler.ttl IS 'lifetime of its results';
COMMENT ON COLUMN eros.status_handler.jobs_pending IS 'its pending jobs';
COMMENT ON COLUMN eros.status_handler.jobs_failed IS 'its jobs that are out of attempts; see eros.retry()';
COMMENT ON COLUMN eros.status_handler.batches IS 'its calls';
COMMENT ON COLUMN eros.status_handler.users_done IS 'users whose job was finished';
COMMENT ON COLUMN eros.status_handler.batches_failed IS 'calls for one user that raised an error or timed out; larger ones that do are split, and not counted';
COMMENT ON COLUMN eros.status_handler.batches_halted IS 'calls that were interrupted by a returning user';
COMMENT ON COLUMN eros.status_handler.cpu_used_ms IS 'CPU time of its batches, in ms';
COMMENT ON COLUMN eros.status_handler.cpu_halted_ms IS 'part of it that was lost to halts, in ms';
COMMENT ON COLUMN eros.status_handler.cost_ms IS 'CPU time per user, in ms, moving average; NULL: never measured';
COMMENT ON COLUMN eros.status_handler.results_stored IS 'results stored';
COMMENT ON COLUMN eros.status_handler.hits IS 'calls of eros.get() that found a result';
COMMENT ON COLUMN eros.status_handler.misses IS 'calls of eros.get() that found none';
COMMENT ON COLUMN eros.status_handler.hit_percent IS 'hits in percent of both';
COMMENT ON COLUMN eros.status_handler.results_expired IS 'results whose partition has been dropped';
COMMENT ON COLUMN eros.status_handler.results_unread IS 'of these, results that nobody had read; estimated by HyperLogLog, standard error 3.25 % of those read';
COMMENT ON COLUMN eros.status_handler.error IS 'why it cannot be called at all';
COMMENT ON COLUMN eros.status_handler.error_at IS 'since when';
COMMENT ON COLUMN eros.status_handler.suspended_until IS 'until when it is not called, since workers have ended in its calls; NULL: it is not suspended';
COMMENT ON COLUMN eros.status_handler.counted IS 'whether its figures are kept; false: there is no room within eros.max_handlers, and the counters stay at zero';

CREATE VIEW eros.status_worker AS
	SELECT i.worker, i.pid, i.activity, h.name AS handler, i.phase, i.batch_users,
		   CASE WHEN i.batch_start IS NOT NULL THEN clock_timestamp() - i.batch_start END AS batch_age,
		   i.started, i.batches, i.users_done, i.cpu_used_ms, i.grant_percent, i.waited_percent,
		   clock_timestamp() - i.snapshot_start AS snapshot_age
	FROM eros.worker_info() i LEFT JOIN eros.handler h USING (handler_id)
	ORDER BY i.worker;
COMMENT ON VIEW eros.status_worker IS 'what each worker of this database does now';
COMMENT ON COLUMN eros.status_worker.worker IS 'its number, from 1';
COMMENT ON COLUMN eros.status_worker.pid IS 'its process, as in pg_stat_activity';
COMMENT ON COLUMN eros.status_worker.activity IS 'starting, idle, claiming, computing, storing, pausing (until the share allows the next batch) or pausing in call (until it allows more of this one)';
COMMENT ON COLUMN eros.status_worker.handler IS 'the handler that it calls now';
COMMENT ON COLUMN eros.status_worker.phase IS 'the phase that pays for it';
COMMENT ON COLUMN eros.status_worker.batch_users IS 'users in the batch';
COMMENT ON COLUMN eros.status_worker.batch_age IS 'time since the handler was called, pauses included';
COMMENT ON COLUMN eros.status_worker.started IS 'when the worker was started';
COMMENT ON COLUMN eros.status_worker.batches IS 'batches since then';
COMMENT ON COLUMN eros.status_worker.users_done IS 'users whose job was finished since then';
COMMENT ON COLUMN eros.status_worker.cpu_used_ms IS 'CPU time of its batches since then, in ms';
COMMENT ON COLUMN eros.status_worker.grant_percent IS 'part of the phases'' shares that it takes, in percent: less than 100 while the machine is contended';
COMMENT ON COLUMN eros.status_worker.snapshot_age IS 'age of the snapshot that the batch holds, and with which it keeps vacuum back, in a pause inside of the call, too; bounded by the handler''s timeout and eros.max_snapshot_age; NULL: it holds none';
COMMENT ON COLUMN eros.status_worker.waited_percent IS 'part of its running time for which it last had to wait for a CPU, in percent, by the kernel''s schedstat';

CREATE FUNCTION eros.error_info(
	OUT process text, OUT pid integer, OUT handler_id integer, OUT message text, OUT sqlstate text,
	OUT at timestamptz, OUT count bigint, OUT own boolean) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'eros_error_info' LANGUAGE C VOLATILE ROWS 10;
COMMENT ON FUNCTION eros.error_info() IS 'internal: the recent errors of processes; see eros.status_error';

CREATE VIEW eros.status_error AS
	SELECT i.process, i.pid, h.name AS handler, i.message, i.sqlstate, i.at, i.count
	FROM eros.error_info() i LEFT JOIN eros.handler h USING (handler_id)
	ORDER BY i.at DESC;
COMMENT ON VIEW eros.status_error IS 'the recent errors of EROS''s processes in this database, those of handlers included, and of the launcher, since the server''s start; the 64 last of the whole server. Each is logged at most once a minute';
COMMENT ON COLUMN eros.status_error.process IS 'launcher, scheduler or worker';
COMMENT ON COLUMN eros.status_error.pid IS 'the process that had it last';
COMMENT ON COLUMN eros.status_error.handler IS 'the handler whose batch it was; NULL: none, or it has been dropped';
COMMENT ON COLUMN eros.status_error.message IS 'the message when it came last, at most 255 bytes; NULL: it is a handler''s function''s, which may name users, and is shown to the handler''s owner and to superusers';
COMMENT ON COLUMN eros.status_error.sqlstate IS 'its SQLSTATE';
COMMENT ON COLUMN eros.status_error.at IS 'when it came last, by eros.now()';
COMMENT ON COLUMN eros.status_error.count IS 'how often it came, with whatever values in its message';

CREATE VIEW eros.status_halt AS
	SELECT i.halts, i.p50_ms, i.p99_ms, i.max_ms, i.forced FROM eros.halt_info() i;
COMMENT ON VIEW eros.status_halt IS 'how fast returning users stop the work on them, from the touch to the roll-back finished, since the server''s start';
COMMENT ON COLUMN eros.status_halt.halts IS 'batches halted by a returning user';
COMMENT ON COLUMN eros.status_halt.p50_ms IS 'median latency, in ms; the upper bound of its class, classes being a fourth root of two apart';
COMMENT ON COLUMN eros.status_halt.p99_ms IS '99th percentile of the latency, in ms, likewise';
COMMENT ON COLUMN eros.status_halt.max_ms IS 'longest latency, in ms';
COMMENT ON COLUMN eros.status_halt.forced IS 'workers that were terminated because they did not yield within eros.halt_timeout';

CREATE VIEW eros.status_halt_recent AS
	SELECT i.halted_at, i.reason, h.name AS handler, i.phase, i.worker, i.batch_users, i.latency_ms
	FROM eros.halt_recent_info() i LEFT JOIN eros.handler h USING (handler_id)
	ORDER BY i.halted_at DESC;
COMMENT ON VIEW eros.status_halt_recent IS 'the last 16 halts of this database, the latest first';
COMMENT ON COLUMN eros.status_halt_recent.halted_at IS 'when the batch had been rolled back';
COMMENT ON COLUMN eros.status_halt_recent.reason IS 'return: a user of the batch was back; waiter: somebody waited for a lock; pause: eros.pause()';
COMMENT ON COLUMN eros.status_halt_recent.handler IS 'the handler that was halted; NULL: it is dropped';
COMMENT ON COLUMN eros.status_halt_recent.phase IS 'the phase that paid for it';
COMMENT ON COLUMN eros.status_halt_recent.worker IS 'number of the worker';
COMMENT ON COLUMN eros.status_halt_recent.batch_users IS 'users in the batch';
COMMENT ON COLUMN eros.status_halt_recent.latency_ms IS 'from the request to the roll-back finished, in ms';

CREATE VIEW eros.status_queue AS
	SELECT h.name AS handler, h.phase,
		   coalesce(i.pending, 0) AS jobs_pending,
		   coalesce(i.failed, 0) AS jobs_failed,
		   n.due_at AS next_due,
		   CASE WHEN n.due_at <= eros.now() THEN eros.now() - n.due_at END AS oldest_wait
	FROM eros.handler h
	LEFT JOIN eros.handler_info() i USING (handler_id)
	LEFT JOIN LATERAL (
		SELECT j.due_at FROM eros.job j
		WHERE j.phase = h.phase AND j.handler_id = h.handler_id AND j.status = 'pending'
		ORDER BY j.due_at LIMIT 1) n ON true
	ORDER BY h.phase, h.name;
COMMENT ON VIEW eros.status_queue IS 'per handler: jobs that are pending or failed, and how long the oldest has waited';
COMMENT ON COLUMN eros.status_queue.handler IS 'the handler';
COMMENT ON COLUMN eros.status_queue.phase IS 'the phase in which it runs';
COMMENT ON COLUMN eros.status_queue.jobs_pending IS 'jobs to be run';
COMMENT ON COLUMN eros.status_queue.jobs_failed IS 'jobs out of attempts';
COMMENT ON COLUMN eros.status_queue.next_due IS 'when the first of them may run, or could have';
COMMENT ON COLUMN eros.status_queue.oldest_wait IS 'for how long a job has been due; NULL: none is';

CREATE VIEW eros.status_cache AS
	SELECT p.partition, make_interval(hours => (2 ^ p.bucket)::integer) AS width, p.lower, p.upper,
		   p.bytes AS live_bytes, pg_total_relation_size(p.partition) AS size_bytes,
		   greatest(c.reltuples, 0)::bigint AS entries
	FROM eros.cache_partitions() p JOIN pg_class c ON c.oid = p.partition
	ORDER BY p.bucket, p.lower;
COMMENT ON VIEW eros.status_cache IS 'the partitions of the cache';
COMMENT ON COLUMN eros.status_cache.partition IS 'the partition';
COMMENT ON COLUMN eros.status_cache.width IS 'span of expiry that it holds';
COMMENT ON COLUMN eros.status_cache.lower IS 'results in it expire at or after this';
COMMENT ON COLUMN eros.status_cache.upper IS 'and before this: then it is dropped';
COMMENT ON COLUMN eros.status_cache.live_bytes IS 'bytes of live results, which eros.cache_limit bounds';
COMMENT ON COLUMN eros.status_cache.size_bytes IS 'bytes on disk, with indexes and dead rows';
COMMENT ON COLUMN eros.status_cache.entries IS 'entries, as estimated by the last VACUUM or ANALYZE';

CREATE VIEW eros.status_database AS
	SELECT d.datname AS database,
		   CASE
			WHEN d.datconnlimit = -2 THEN 'left alone: DROP DATABASE was interrupted, repeat it'
			WHEN NOT d.datallowconn THEN 'left alone: it allows no connections'
			WHEN d.datistemplate THEN 'left alone: it is a template'
			WHEN NOT current_setting('eros.enabled')::boolean THEN 'switched off: eros.enabled is off'
			WHEN i.held THEN 'kept out while a command works on the database or on the extension'
			WHEN i.failed_starts > 1 AND i.scheduler_pid IS NULL THEN 'its scheduler does not come up: see the server log'
			WHEN i.failed_rounds > 0 THEN format('its scheduler fails (SQLSTATE %s): see the server log', i.sqlstate)
			WHEN i.waiting_since IS NOT NULL OR i.no_worker_slot
				THEN 'waits for a worker slot: raise max_worker_processes or lower eros.workers'
			WHEN i.paused THEN 'paused'
			WHEN i.scheduler_pid IS NULL AND NOT i.away THEN 'its scheduler is not running: it is started within seconds'
			ELSE 'ok'
		   END AS status,
		   i.scheduler_pid, coalesce(i.workers, 0) AS workers, i.turns, i.waiting_since, i.longest_wait_ms,
		   CASE WHEN i.scheduler_pid IS NULL THEN i.needed_at END AS next_turn
	FROM pg_database d LEFT JOIN eros.databases_info() i ON i.database = d.oid
	WHERE i.database IS NOT NULL OR (NOT d.datallowconn AND NOT d.datistemplate) OR d.datconnlimit = -2
	ORDER BY d.datname;
COMMENT ON VIEW eros.status_database IS 'how each database of the server that has the extension is served, in whichever of them one looks; also databases that cannot be looked at';
COMMENT ON COLUMN eros.status_database.database IS 'its name';
COMMENT ON COLUMN eros.status_database.status IS '''ok'', or why it is not served, or not at the moment';
COMMENT ON COLUMN eros.status_database.scheduler_pid IS 'process of its scheduler; NULL: none runs, which is as it should be when there are fewer worker slots than databases and nothing is due';
COMMENT ON COLUMN eros.status_database.workers IS 'its workers that run now';
COMMENT ON COLUMN eros.status_database.turns IS 'how often a scheduler has come up there since the server''s start';
COMMENT ON COLUMN eros.status_database.waiting_since IS 'since when a scheduler, or a first worker, waits for a slot; NULL: none does';
COMMENT ON COLUMN eros.status_database.longest_wait_ms IS 'how long a scheduler has had to wait for a slot at most, in ms, waits that are over';
COMMENT ON COLUMN eros.status_database.next_turn IS 'when a scheduler is needed next, by eros.now(); NULL: one runs, or none is needed until somebody comes';
GRANT SELECT ON eros.status_database TO pg_monitor;
GRANT EXECUTE ON FUNCTION eros.databases_info() TO pg_monitor;

------------------------------------------------------------------------------
-- History: a sample a minute for a day, one an hour for thirty days
------------------------------------------------------------------------------

CREATE TYPE eros.sample_of_server AS (
	active_users bigint, idle_users bigint, cache_bytes bigint, workers bigint,
	scheduler_cpu_ms double precision, scheduler_wal_bytes bigint, returns bigint, halts bigint,
	halts_slow bigint, halts_forced bigint, touches_spilled bigint, touches_lost bigint,
	users_spilled bigint, evicted bigint);
COMMENT ON TYPE eros.sample_of_server IS 'internal: what eros.history_ring has of the database; see eros.history_server';

CREATE TYPE eros.sample_of_phase AS (
	phase smallint, users bigint, transitions bigint, batches bigint, users_done bigint,
	cpu_granted_ms double precision, cpu_used_ms double precision, cpu_yielded_ms double precision,
	throttled_ms double precision);
COMMENT ON TYPE eros.sample_of_phase IS 'internal: what eros.history_ring has of a phase; see eros.history_phase';

CREATE TYPE eros.sample_of_handler AS (
	handler_id integer, phase smallint, jobs_pending bigint, jobs_failed bigint, oldest_wait_ms bigint,
	batches bigint, users_done bigint, batches_failed bigint, batches_halted bigint,
	cpu_used_ms double precision, cpu_halted_ms double precision, results_stored bigint, hits bigint,
	misses bigint, results_expired bigint, results_unread bigint, jobs_added bigint,
	jobs_refreshing bigint, stored_bytes bigint, wal_bytes bigint, crossings bigint, backfilled bigint, wal_fpi bigint, cache_bytes bigint);
COMMENT ON TYPE eros.sample_of_handler IS 'internal: what eros.history_ring has of a handler; see eros.history_handler';

CREATE FUNCTION eros.sample_server(as_of timestamptz) RETURNS SETOF eros.sample_of_server
	AS 'MODULE_PATHNAME', 'eros_sample_server' LANGUAGE C VOLATILE ROWS 1;
COMMENT ON FUNCTION eros.sample_server(timestamptz) IS 'internal: the database, with what was counted since a sample, one of the last two: sampled_at of the newest that the caller sees';

CREATE FUNCTION eros.sample_phases(as_of timestamptz) RETURNS SETOF eros.sample_of_phase
	AS 'MODULE_PATHNAME', 'eros_sample_phases' LANGUAGE C VOLATILE ROWS 3;
COMMENT ON FUNCTION eros.sample_phases(timestamptz) IS 'internal: the phases, with what was counted since a sample, one of the last two: sampled_at of the newest that the caller sees';

CREATE FUNCTION eros.sample_handlers(as_of timestamptz) RETURNS SETOF eros.sample_of_handler
	AS 'MODULE_PATHNAME', 'eros_sample_handlers' LANGUAGE C VOLATILE ROWS 10;
COMMENT ON FUNCTION eros.sample_handlers(timestamptz) IS 'internal: the handlers, with what was counted since a sample, one of the last two: sampled_at of the newest that the caller sees';

CREATE TABLE eros.history_ring (
	span_s smallint NOT NULL CHECK (span_s IN (60, 3600)),
	slot smallint NOT NULL CHECK (slot BETWEEN 0 AND 1439),
	sampled_at timestamptz NOT NULL,
	counted_since timestamptz NOT NULL,
	server eros.sample_of_server NOT NULL,
	phases eros.sample_of_phase[] NOT NULL,
	handlers eros.sample_of_handler[] NOT NULL,
	most_active bigint,
	most_idle bigint,
	most_writes_per_s double precision,
	PRIMARY KEY (span_s, slot)
) WITH (fillfactor = 50);
COMMENT ON TABLE eros.history_ring IS
	'the history, in at most 1440 rows of a minute and 720 of an hour, each overwritten when its slot comes round again; written by the scheduler, read through eros.history_server, history_phase and history_handler';
COMMENT ON COLUMN eros.history_ring.span_s IS '60: a minute, 3600: an hour';
COMMENT ON COLUMN eros.history_ring.slot IS 'minute of the day, or hour of 30 days';
COMMENT ON COLUMN eros.history_ring.sampled_at IS 'end of the minute or hour';
COMMENT ON COLUMN eros.history_ring.counted_since IS 'since when its counters count: the sample before, or the scheduler''s start';
COMMENT ON COLUMN eros.history_ring.server IS 'the database';
COMMENT ON COLUMN eros.history_ring.phases IS 'the phases';
COMMENT ON COLUMN eros.history_ring.handlers IS 'the handlers';
COMMENT ON COLUMN eros.history_ring.most_active IS 'of an hour: most active users in one of its samples; NULL in a minute';
COMMENT ON COLUMN eros.history_ring.most_idle IS 'of an hour: most idle users in one of its samples; NULL in a minute';
COMMENT ON COLUMN eros.history_ring.most_writes_per_s IS 'of an hour: crossings and returns a second in the busiest of its samples; NULL in a minute';

CREATE FUNCTION eros.sum_up_history() RETURNS void
	LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
	WITH minute AS (
		SELECT r.*, ((SELECT sum(p.transitions) FROM unnest(r.phases) p) + (r.server).returns)
				   / greatest(extract(epoch FROM r.sampled_at - r.counted_since)::double precision, r.span_s) AS writes_per_s,
			   to_timestamp(ceil(extract(epoch FROM r.sampled_at) / 3600) * 3600) AS hour
		FROM eros.history_ring r
		WHERE r.span_s = 60
		  AND r.sampled_at > eros.now() - interval '30 days' AND r.sampled_at <= eros.now()
	), hour AS (
		SELECT m.hour, min(m.counted_since) AS counted_since,
			   ROW(avg((m.server).active_users), avg((m.server).idle_users), avg((m.server).cache_bytes),
				   max((m.server).workers), sum((m.server).scheduler_cpu_ms), sum((m.server).scheduler_wal_bytes),
				   sum((m.server).returns), sum((m.server).halts), sum((m.server).halts_slow),
				   sum((m.server).halts_forced), sum((m.server).touches_spilled), sum((m.server).touches_lost),
				   sum((m.server).users_spilled), sum((m.server).evicted))::eros.sample_of_server AS server,
			   max((m.server).active_users) AS most_active, max((m.server).idle_users) AS most_idle, max(m.writes_per_s) AS most_writes_per_s
		FROM minute m
		WHERE m.hour <= eros.now()
		  AND NOT EXISTS (SELECT FROM eros.history_ring r WHERE r.span_s = 3600 AND r.sampled_at = m.hour)
		GROUP BY m.hour
	)
	INSERT INTO eros.history_ring AS r (span_s, slot, sampled_at, counted_since, server, phases, handlers, most_active, most_idle, most_writes_per_s)
	SELECT 3600, (extract(epoch FROM h.hour) / 3600)::bigint % 720, h.hour, h.counted_since, h.server,
		   ARRAY(SELECT ROW(p.phase, avg(p.users), sum(p.transitions), sum(p.batches), sum(p.users_done),
							sum(p.cpu_granted_ms), sum(p.cpu_used_ms), sum(p.cpu_yielded_ms),
							sum(p.throttled_ms))::eros.sample_of_phase
				 FROM minute m CROSS JOIN unnest(m.phases) p WHERE m.hour = h.hour GROUP BY p.phase),
		   ARRAY(SELECT ROW(s.handler_id, max(s.phase), avg(s.jobs_pending), avg(s.jobs_failed), max(s.oldest_wait_ms),
							sum(s.batches), sum(s.users_done), sum(s.batches_failed), sum(s.batches_halted),
							sum(s.cpu_used_ms), sum(s.cpu_halted_ms), sum(s.results_stored), sum(s.hits),
							sum(s.misses), sum(s.results_expired), sum(s.results_unread), sum(s.jobs_added),
							sum(s.jobs_refreshing), sum(s.stored_bytes), sum(s.wal_bytes), sum(s.crossings),
							sum(s.backfilled), sum(s.wal_fpi), avg(s.cache_bytes))::eros.sample_of_handler
				 FROM minute m CROSS JOIN unnest(m.handlers) s WHERE m.hour = h.hour GROUP BY s.handler_id),
		   h.most_active, h.most_idle, h.most_writes_per_s
	FROM hour h
	ON CONFLICT (span_s, slot) DO UPDATE
	SET sampled_at = EXCLUDED.sampled_at, counted_since = EXCLUDED.counted_since, server = EXCLUDED.server,
		phases = EXCLUDED.phases, handlers = EXCLUDED.handlers, most_active = EXCLUDED.most_active,
		most_idle = EXCLUDED.most_idle, most_writes_per_s = EXCLUDED.most_writes_per_s
$$;
COMMENT ON FUNCTION eros.sum_up_history() IS
	'internal: makes the samples of the hours that are over from those of their minutes: counters summed up, gauges averaged, workers and oldest_wait_ms the highest';

-- Minutes (or hours) without a sample: nothing has changed, unless the server was down.
CREATE VIEW eros.history_filled AS
	WITH ring AS (
		SELECT r.span_s, make_interval(secs => r.span_s) AS span, r.sampled_at, r.counted_since,
			   r.server, r.phases, r.handlers,
			   lag(r.sampled_at) OVER w AS before_at, lag(r.server) OVER w AS before_server,
			   lag(r.phases) OVER w AS before_phases, lag(r.handlers) OVER w AS before_handlers,
			   lead(r.sampled_at) OVER w IS NULL AS latest
		FROM eros.history_ring r
		WHERE r.sampled_at > eros.now() - CASE r.span_s WHEN 60 THEN interval '1 day' ELSE interval '30 days' END
		  AND r.sampled_at <= eros.now()
		WINDOW w AS (PARTITION BY r.span_s ORDER BY r.sampled_at)
	), bounded AS (
		SELECT r.*, coalesce(r.before_at <= r.counted_since AND r.counted_since < r.before_at + r.span, false) AS follows,
			   to_timestamp(ceil(extract(epoch FROM r.counted_since) / r.span_s) * r.span_s) AS since
		FROM ring r
	)
	SELECT t.at AS sampled_at, b.span, t.at = b.sampled_at AS changed,
		   CASE WHEN t.at < b.sampled_at AND b.follows THEN b.before_server ELSE b.server END AS server,
		   CASE WHEN t.at < b.sampled_at AND b.follows THEN b.before_phases ELSE b.phases END AS phases,
		   CASE WHEN t.at < b.sampled_at AND b.follows THEN b.before_handlers ELSE b.handlers END AS handlers
	FROM bounded b
	CROSS JOIN LATERAL generate_series(
		least(b.sampled_at, greatest(b.before_at + b.span, b.since,
			to_timestamp(ceil(extract(epoch FROM eros.now()) / b.span_s) * b.span_s)
				- CASE b.span_s WHEN 60 THEN interval '1 day' ELSE interval '30 days' END)),
		CASE WHEN b.latest THEN to_timestamp(floor(extract(epoch FROM eros.now()) / b.span_s) * b.span_s)
			 ELSE b.sampled_at END,
		b.span) AS t (at);
COMMENT ON VIEW eros.history_filled IS
	'internal: the history with the minutes and hours in which nothing has changed, which have the gauges of the sample before and whose counters do not count; those without a server are left out';
COMMENT ON COLUMN eros.history_filled.sampled_at IS 'end of the minute or hour';
COMMENT ON COLUMN eros.history_filled.span IS '1 minute or 1 hour';
COMMENT ON COLUMN eros.history_filled.changed IS 'whether there is a sample; if not, its counters count as zero';
COMMENT ON COLUMN eros.history_filled.server IS 'the database';
COMMENT ON COLUMN eros.history_filled.phases IS 'the phases';
COMMENT ON COLUMN eros.history_filled.handlers IS 'the handlers';

CREATE VIEW eros.history_server AS
	SELECT f.sampled_at, f.span,
		   (f.server).active_users,
		   (f.server).idle_users,
		   (f.server).cache_bytes,
		   (f.server).workers,
		   CASE WHEN f.changed THEN (f.server).scheduler_cpu_ms ELSE 0 END AS scheduler_cpu_ms,
		   CASE WHEN f.changed THEN (f.server).scheduler_wal_bytes ELSE 0 END AS scheduler_wal_bytes,
		   CASE WHEN f.changed THEN (f.server).returns ELSE 0 END AS returns,
		   CASE WHEN f.changed THEN (f.server).halts ELSE 0 END AS halts,
		   CASE WHEN f.changed THEN (f.server).halts_slow ELSE 0 END AS halts_slow,
		   CASE WHEN f.changed THEN (f.server).halts_forced ELSE 0 END AS halts_forced,
		   CASE WHEN f.changed THEN (f.server).touches_spilled ELSE 0 END AS touches_spilled,
		   CASE WHEN f.changed THEN (f.server).touches_lost ELSE 0 END AS touches_lost,
		   CASE WHEN f.changed THEN (f.server).users_spilled ELSE 0 END AS users_spilled,
		   CASE WHEN f.changed THEN (f.server).evicted ELSE 0 END AS evicted,
		   f.changed
	FROM eros.history_filled f;
COMMENT ON VIEW eros.history_server IS 'the history of this database: counters are what was counted in the span, gauges the value at its end, or the average of an hour''s samples';
COMMENT ON COLUMN eros.history_server.sampled_at IS 'end of the minute or hour, by eros.now()';
COMMENT ON COLUMN eros.history_server.span IS '1 minute (the last 24 hours) or 1 hour (the last 30 days)';
COMMENT ON COLUMN eros.history_server.active_users IS 'users of this database in shared memory';
COMMENT ON COLUMN eros.history_server.idle_users IS 'users in eros.activity, in a phase';
COMMENT ON COLUMN eros.history_server.cache_bytes IS 'bytes of live results';
COMMENT ON COLUMN eros.history_server.workers IS 'workers that ran; of an hour: the most';
COMMENT ON COLUMN eros.history_server.scheduler_cpu_ms IS 'CPU time of the scheduler, in ms';
COMMENT ON COLUMN eros.history_server.scheduler_wal_bytes IS 'WAL that the scheduler wrote, in bytes';
COMMENT ON COLUMN eros.history_server.returns IS 'idle or new users who became active';
COMMENT ON COLUMN eros.history_server.halts IS 'batches halted, for whatever reason';
COMMENT ON COLUMN eros.history_server.halts_slow IS 'halts by returning users that took longer than 500 ms';
COMMENT ON COLUMN eros.history_server.halts_forced IS 'workers terminated because they did not yield to a halt';
COMMENT ON COLUMN eros.history_server.touches_spilled IS 'touches that went to the table since the memory was full';
COMMENT ON COLUMN eros.history_server.touches_lost IS 'touches that could not';
COMMENT ON COLUMN eros.history_server.users_spilled IS 'active users moved to the table to make room';
COMMENT ON COLUMN eros.history_server.evicted IS 'cache entries evicted at eros.cache_limit';
COMMENT ON COLUMN eros.history_server.changed IS 'false: nothing had changed, so no sample was taken; counters are 0, gauges those of the sample before';

CREATE VIEW eros.history_phase AS
	SELECT f.sampled_at, f.span, p.phase,
		   p.users,
		   CASE WHEN f.changed THEN p.transitions ELSE 0 END AS transitions,
		   CASE WHEN f.changed THEN p.batches ELSE 0 END AS batches,
		   CASE WHEN f.changed THEN p.users_done ELSE 0 END AS users_done,
		   CASE WHEN f.changed THEN p.cpu_granted_ms ELSE 0 END AS cpu_granted_ms,
		   CASE WHEN f.changed THEN p.cpu_used_ms ELSE 0 END AS cpu_used_ms,
		   CASE WHEN f.changed THEN p.cpu_yielded_ms ELSE 0 END AS cpu_yielded_ms,
		   CASE WHEN f.changed THEN p.throttled_ms ELSE 0 END AS throttled_ms,
		   coalesce(q.jobs_pending, 0) AS jobs_pending,
		   coalesce(q.jobs_failed, 0) AS jobs_failed,
		   coalesce(q.oldest_wait_ms, 0) AS oldest_wait_ms,
		   CASE WHEN f.changed THEN coalesce(q.batches_failed, 0) ELSE 0 END AS batches_failed,
		   CASE WHEN f.changed THEN coalesce(q.batches_halted, 0) ELSE 0 END AS batches_halted,
		   CASE WHEN f.changed THEN coalesce(q.hits, 0) ELSE 0 END AS hits,
		   CASE WHEN f.changed THEN coalesce(q.misses, 0) ELSE 0 END AS misses,
		   CASE WHEN f.changed THEN coalesce(q.results_expired, 0) ELSE 0 END AS results_expired,
		   CASE WHEN f.changed THEN coalesce(q.results_unread, 0) ELSE 0 END AS results_unread,
		   coalesce(q.cache_bytes, 0) AS cache_bytes,
		   f.changed
	FROM eros.history_filled f
	CROSS JOIN LATERAL unnest(f.phases) p
	LEFT JOIN LATERAL (SELECT sum(h.jobs_pending)::bigint AS jobs_pending, sum(h.jobs_failed)::bigint AS jobs_failed,
							  max(h.oldest_wait_ms) AS oldest_wait_ms, sum(h.batches_failed)::bigint AS batches_failed,
							  sum(h.batches_halted)::bigint AS batches_halted, sum(h.hits)::bigint AS hits,
							  sum(h.misses)::bigint AS misses, sum(h.results_expired)::bigint AS results_expired,
							  sum(h.results_unread)::bigint AS results_unread, sum(h.cache_bytes)::bigint AS cache_bytes
					   FROM unnest(f.handlers) h WHERE h.phase = p.phase) q ON true;
COMMENT ON VIEW eros.history_phase IS 'the history per phase: counters are what was counted in the span, gauges the value at its end, or the average of an hour''s samples';
COMMENT ON COLUMN eros.history_phase.sampled_at IS 'end of the minute or hour, by eros.now()';
COMMENT ON COLUMN eros.history_phase.span IS '1 minute (the last 24 hours) or 1 hour (the last 30 days)';
COMMENT ON COLUMN eros.history_phase.phase IS 'number of the phase';
COMMENT ON COLUMN eros.history_phase.users IS 'idle users in this phase';
COMMENT ON COLUMN eros.history_phase.transitions IS 'crossings into it';
COMMENT ON COLUMN eros.history_phase.batches IS 'calls of handlers';
COMMENT ON COLUMN eros.history_phase.users_done IS 'jobs finished';
COMMENT ON COLUMN eros.history_phase.cpu_granted_ms IS 'CPU time granted while there was work, in ms';
COMMENT ON COLUMN eros.history_phase.cpu_used_ms IS 'CPU time used, in ms';
COMMENT ON COLUMN eros.history_phase.cpu_yielded_ms IS 'CPU time left to others because the machine was contended, in ms';
COMMENT ON COLUMN eros.history_phase.throttled_ms IS 'time that workers waited although jobs were due, in ms';
COMMENT ON COLUMN eros.history_phase.jobs_pending IS 'pending jobs of its handlers';
COMMENT ON COLUMN eros.history_phase.jobs_failed IS 'jobs of its handlers out of attempts';
COMMENT ON COLUMN eros.history_phase.oldest_wait_ms IS 'for how long the oldest of them had been due, in ms; of an hour: the longest';
COMMENT ON COLUMN eros.history_phase.batches_failed IS 'calls for one user that raised an error or timed out; larger ones that do are split, and not counted';
COMMENT ON COLUMN eros.history_phase.batches_halted IS 'calls that were halted';
COMMENT ON COLUMN eros.history_phase.hits IS 'calls of eros.get() for its handlers that found a result';
COMMENT ON COLUMN eros.history_phase.misses IS 'calls of eros.get() for its handlers that found none';
COMMENT ON COLUMN eros.history_phase.results_expired IS 'results whose partition was dropped';
COMMENT ON COLUMN eros.history_phase.results_unread IS 'of these, results that nobody had read';
COMMENT ON COLUMN eros.history_phase.cache_bytes IS 'bytes of live results of its handlers; see eros.history_handler';
COMMENT ON COLUMN eros.history_phase.changed IS 'false: nothing had changed, so no sample was taken; counters are 0, gauges those of the sample before';

CREATE VIEW eros.history_handler AS
	SELECT f.sampled_at, f.span, h.handler_id, n.name AS handler, h.phase,
		   h.jobs_pending,
		   h.jobs_failed,
		   h.oldest_wait_ms,
		   CASE WHEN f.changed THEN h.batches ELSE 0 END AS batches,
		   CASE WHEN f.changed THEN h.users_done ELSE 0 END AS users_done,
		   CASE WHEN f.changed THEN h.batches_failed ELSE 0 END AS batches_failed,
		   CASE WHEN f.changed THEN h.batches_halted ELSE 0 END AS batches_halted,
		   CASE WHEN f.changed THEN h.cpu_used_ms ELSE 0 END AS cpu_used_ms,
		   CASE WHEN f.changed THEN h.cpu_halted_ms ELSE 0 END AS cpu_halted_ms,
		   CASE WHEN f.changed THEN h.results_stored ELSE 0 END AS results_stored,
		   CASE WHEN f.changed THEN h.hits ELSE 0 END AS hits,
		   CASE WHEN f.changed THEN h.misses ELSE 0 END AS misses,
		   CASE WHEN f.changed THEN h.results_expired ELSE 0 END AS results_expired,
		   CASE WHEN f.changed THEN h.results_unread ELSE 0 END AS results_unread,
		   CASE WHEN f.changed THEN h.jobs_added ELSE 0 END AS jobs_added,
		   CASE WHEN f.changed THEN h.jobs_refreshing ELSE 0 END AS jobs_refreshing,
		   CASE WHEN f.changed THEN h.stored_bytes ELSE 0 END AS stored_bytes,
		   CASE WHEN f.changed THEN h.wal_bytes ELSE 0 END AS wal_bytes,
		   CASE WHEN f.changed THEN h.crossings ELSE 0 END AS crossings,
		   CASE WHEN f.changed THEN h.backfilled ELSE 0 END AS backfilled,
		   CASE WHEN f.changed THEN h.wal_fpi ELSE 0 END AS wal_fpi,
		   coalesce(h.cache_bytes, 0) AS cache_bytes,
		   CASE WHEN f.changed THEN coalesce(g.granted * h.cpu_used_ms / nullif(h.used, 0), 0) ELSE 0 END AS cpu_granted_ms,
		   f.changed
	FROM eros.history_filled f
	CROSS JOIN LATERAL (SELECT x.*, sum(x.cpu_used_ms) OVER (PARTITION BY x.phase) AS used FROM unnest(f.handlers) x) h
	LEFT JOIN LATERAL (SELECT p.cpu_granted_ms AS granted FROM unnest(f.phases) p WHERE p.phase = h.phase) g ON true
	LEFT JOIN eros.handler n USING (handler_id);
COMMENT ON VIEW eros.history_handler IS 'the history per handler: counters are what was counted in the span, gauges the value at its end, or the average of an hour''s samples';
COMMENT ON COLUMN eros.history_handler.sampled_at IS 'end of the minute or hour, by eros.now()';
COMMENT ON COLUMN eros.history_handler.span IS '1 minute (the last 24 hours) or 1 hour (the last 30 days)';
COMMENT ON COLUMN eros.history_handler.handler_id IS 'its number';
COMMENT ON COLUMN eros.history_handler.handler IS 'its name; NULL when it has been dropped';
COMMENT ON COLUMN eros.history_handler.phase IS 'the phase in which it ran';
COMMENT ON COLUMN eros.history_handler.jobs_pending IS 'jobs to be run';
COMMENT ON COLUMN eros.history_handler.jobs_failed IS 'jobs out of attempts';
COMMENT ON COLUMN eros.history_handler.oldest_wait_ms IS 'for how long its oldest job had been due, in ms; of an hour: the longest';
COMMENT ON COLUMN eros.history_handler.batches IS 'its calls';
COMMENT ON COLUMN eros.history_handler.users_done IS 'jobs finished';
COMMENT ON COLUMN eros.history_handler.batches_failed IS 'calls for one user that raised an error or timed out; larger ones that do are split, and not counted';
COMMENT ON COLUMN eros.history_handler.batches_halted IS 'calls that were halted';
COMMENT ON COLUMN eros.history_handler.cpu_used_ms IS 'CPU time of its batches, in ms';
COMMENT ON COLUMN eros.history_handler.cpu_halted_ms IS 'part of it that was lost to halts, in ms';
COMMENT ON COLUMN eros.history_handler.results_stored IS 'results stored';
COMMENT ON COLUMN eros.history_handler.hits IS 'calls of eros.get() that found a result';
COMMENT ON COLUMN eros.history_handler.misses IS 'calls of eros.get() that found none';
COMMENT ON COLUMN eros.history_handler.results_expired IS 'results whose partition was dropped';
COMMENT ON COLUMN eros.history_handler.results_unread IS 'of these, results that nobody had read';
COMMENT ON COLUMN eros.history_handler.jobs_added IS 'jobs created';
COMMENT ON COLUMN eros.history_handler.jobs_refreshing IS 'of these, for results that were about to expire';
COMMENT ON COLUMN eros.history_handler.stored_bytes IS 'bytes of the results stored';
COMMENT ON COLUMN eros.history_handler.wal_bytes IS 'WAL that its batches wrote, in bytes';
COMMENT ON COLUMN eros.history_handler.crossings IS 'users who crossed into its phase while it was enabled';
COMMENT ON COLUMN eros.history_handler.backfilled IS 'of jobs_added, those for users who had been idle already when it was added or enabled';
COMMENT ON COLUMN eros.history_handler.wal_fpi IS 'images of full pages in that WAL, which each page costs once after a checkpoint: how many';
COMMENT ON COLUMN eros.history_handler.cache_bytes IS 'bytes of its live results; after a start of the server, its part of the rows of each partition, as ANALYZE has told, of the size on disk';
COMMENT ON COLUMN eros.history_handler.cpu_granted_ms IS 'its part of the CPU time granted to its phase, in ms: as much as of the time used';
COMMENT ON COLUMN eros.history_handler.changed IS 'false: nothing had changed, so no sample was taken; counters are 0, gauges those of the sample before';

CREATE FUNCTION eros.note_scrape() RETURNS timestamptz
	AS 'MODULE_PATHNAME', 'eros_note_scrape' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION eros.note_scrape() IS
	'notes that somebody collects the metrics of this database now, so that eros.checklist() knows; returns the time of EROS. In shared memory: works in a read-only transaction';

CREATE FUNCTION eros.monitor_info(
	OUT scraped_at timestamptz, OUT sampled_at timestamptz, OUT scheduler_wal_bytes bigint, OUT scrapes integer,
	OUT shared_bytes bigint, OUT scraping_since timestamptz) RETURNS record
	AS 'MODULE_PATHNAME', 'eros_monitor_info' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION eros.monitor_info() IS
	'internal: when the metrics were collected last, when the history was sampled last, the WAL that the scheduler has written, how many scrapes have come in a row, the shared memory of EROS besides that for active users, in bytes, and when the first of that row came';

CREATE FUNCTION eros.latency_info(
	OUT operation text, OUT measured bigint, OUT mean_ms double precision, OUT p50_ms double precision,
	OUT p99_ms double precision, OUT max_ms double precision) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'eros_latency_info' LANGUAGE C VOLATILE ROWS 4;
COMMENT ON FUNCTION eros.latency_info() IS 'internal: how long EROS''s own statements take; see eros.status_latency';

CREATE VIEW eros.status_latency AS
	SELECT i.operation, i.measured, i.mean_ms, i.p50_ms, i.p99_ms, i.max_ms FROM eros.latency_info() i;
COMMENT ON VIEW eros.status_latency IS 'how long EROS''s own statements take in this database, since the server''s start';
COMMENT ON COLUMN eros.status_latency.operation IS
	'claim: a worker claims a batch; store: it stores the results and deletes the jobs; get: eros.get() for one user; sweep: a transaction that moved users who crossed a threshold';
COMMENT ON COLUMN eros.status_latency.measured IS 'how many were measured: all, but of get one in 64';
COMMENT ON COLUMN eros.status_latency.mean_ms IS 'average, in ms';
COMMENT ON COLUMN eros.status_latency.p50_ms IS 'median, in ms; the upper bound of its class, classes being a fourth root of two apart';
COMMENT ON COLUMN eros.status_latency.p99_ms IS '99th percentile, in ms, likewise';
COMMENT ON COLUMN eros.status_latency.max_ms IS 'longest, in ms';

------------------------------------------------------------------------------
-- What was learned: thirty days of history, and what is not in it yet
------------------------------------------------------------------------------

-- Hours, and of the last of them the minutes: whose gauges are those of a moment, no averages.
CREATE VIEW eros.history_part AS
	SELECT r.sampled_at, r.counted_since, r.span_s, r.server, r.phases, r.handlers,
		   coalesce(r.most_active, (r.server).active_users) AS most_active,
		   coalesce(r.most_idle, (r.server).idle_users) AS most_idle,
		   coalesce(r.most_writes_per_s, ((SELECT sum(p.transitions) FROM unnest(r.phases) p) + (r.server).returns)
				/ greatest(extract(epoch FROM r.sampled_at - r.counted_since)::double precision, r.span_s)) AS writes_per_s
	FROM (SELECT eros.now() AS at, to_timestamp(floor(extract(epoch FROM eros.now()) / 3600) * 3600) - interval '23 hours' AS hours_end) k
	CROSS JOIN eros.history_ring r
	WHERE r.sampled_at > k.at - interval '30 days' AND r.sampled_at <= k.at
	  AND CASE r.span_s WHEN 60 THEN r.sampled_at > k.hours_end ELSE r.sampled_at <= k.hours_end END;
COMMENT ON VIEW eros.history_part IS
	'internal: each moment of the history once: the minutes of the last 23 whole hours and of this one, the hours before';
COMMENT ON COLUMN eros.history_part.sampled_at IS 'end of the hour or minute';
COMMENT ON COLUMN eros.history_part.counted_since IS 'since when its counters count';
COMMENT ON COLUMN eros.history_part.span_s IS '60 or 3600';
COMMENT ON COLUMN eros.history_part.server IS 'the database';
COMMENT ON COLUMN eros.history_part.phases IS 'the phases';
COMMENT ON COLUMN eros.history_part.handlers IS 'the handlers';
COMMENT ON COLUMN eros.history_part.most_active IS 'users who were active at its end; of an hour: at most';
COMMENT ON COLUMN eros.history_part.most_idle IS 'users who were idle at its end; of an hour: at most';
COMMENT ON COLUMN eros.history_part.writes_per_s IS 'crossings and returns a second, each of which writes a row of eros.activity; of an hour: in its busiest minute';

CREATE FUNCTION eros.learn_handlers(after timestamptz, upto timestamptz,
	OUT handler_id integer, OUT users_done bigint, OUT cpu_used_ms double precision, OUT results_stored bigint,
	OUT wal_bytes bigint, OUT wal_fpi bigint, OUT jobs_added bigint, OUT jobs_refreshing bigint,
	OUT results_expired bigint, OUT results_unread bigint, OUT left_over bigint,
	OUT cost_ms double precision, OUT entry_bytes double precision, OUT results_per_job double precision,
	OUT created_per_crossing double precision, OUT jobs_per_crossing double precision,
	OUT wal_per_job double precision, OUT images_per_job double precision) RETURNS SETOF record
	LANGUAGE sql VOLATILE ROWS 10 SET search_path = pg_catalog, pg_temp SET jit = off AS $$
	WITH sample AS (
		SELECT w.sampled_at AS at, extract(epoch FROM w.sampled_at)::double precision AS at_s, h.*
		FROM eros.history_part w CROSS JOIN LATERAL unnest(w.handlers) h
		WHERE w.sampled_at > coalesce(learn_handlers.after, '-infinity') AND w.sampled_at <= coalesce(learn_handlers.upto, 'infinity')
		UNION ALL
		SELECT n.at, extract(epoch FROM n.at)::double precision, h.*
		FROM (SELECT eros.now() AS at) n CROSS JOIN eros.sample_handlers((SELECT max(r.sampled_at) FROM eros.history_part r)) h
		WHERE learn_handlers.upto IS NULL
	), span AS (
		SELECT max(at_s) AS upto_s, nullif(max(at_s) - min(at_s), 0) / 4 AS quarter_s FROM sample
	), counted AS (
		SELECT s.handler_id, sum(s.users_done)::bigint AS done, sum(s.cpu_used_ms) AS cpu, sum(s.results_stored)::bigint AS stored,
			   sum(s.stored_bytes)::double precision AS bytes, sum(s.wal_bytes)::bigint AS wal, sum(s.wal_fpi)::bigint AS fpi,
			   sum(s.jobs_added)::bigint AS added, sum(s.jobs_refreshing)::bigint AS refreshing,
			   sum(s.results_expired)::bigint AS expired, sum(s.results_unread)::bigint AS unread,
			   (array_agg(s.jobs_pending + s.jobs_failed ORDER BY s.at DESC))[1] AS left_over,
			   nullif(sum(s.users_done), 0)::double precision AS jobs,
			   (sum(s.jobs_added) - sum(s.backfilled)) / nullif(sum(s.crossings), 0)::double precision AS created,
			   sum(s.cpu_used_ms * w.weight) / nullif(sum(s.users_done * w.weight), 0) AS cost,
			   sum(s.wal_bytes * w.weight) / nullif(sum(s.users_done * w.weight), 0) AS wal_per_job
		FROM sample s CROSS JOIN span n
		CROSS JOIN LATERAL (SELECT coalesce(0.5::double precision ^ ((n.upto_s - s.at_s) / n.quarter_s), 1) AS weight) w
		GROUP BY 1
	)
	-- jobs without those that were withdrawn since the user came back first
	SELECT c.handler_id, c.done, c.cpu, c.stored, c.wal, c.fpi, c.added, c.refreshing, c.expired, c.unread, c.left_over,
		   c.cost, c.bytes / nullif(c.stored, 0), c.stored / c.jobs,
		   c.created, c.created * least(1, (c.done + c.left_over) / nullif(c.added, 0)::double precision),
		   c.wal_per_job, c.fpi / c.jobs
	FROM counted c
$$;
COMMENT ON FUNCTION eros.learn_handlers(timestamptz, timestamptz) IS
	'internal: what was counted of each handler after one sample and up to another (NULL: the first; what is not in the history yet, too), the jobs that were pending or failed at its end, and what follows: CPU, results and WAL a job done, bytes a result, jobs created and jobs to be done a crossing. Of CPU and WAL a job, a sample counts half as much as one that is later by a quarter of the time: the first calls of a worker and the first results are dearer than those that follow, and data grow';

CREATE FUNCTION eros.learn_phases(after timestamptz, upto timestamptz,
	OUT phase smallint, OUT transitions bigint, OUT cpu_granted_ms double precision, OUT cpu_used_ms double precision,
	OUT before bigint, OUT reach double precision) RETURNS SETOF record
	LANGUAGE sql VOLATILE ROWS 3 SET search_path = pg_catalog, pg_temp SET jit = off AS $$
	WITH counted AS (
		SELECT s.phase, sum(s.transitions)::bigint AS transitions, sum(s.cpu_granted_ms) AS granted, sum(s.cpu_used_ms) AS used,
			   (array_agg(s.users ORDER BY s.at DESC))[1] AS users
		FROM (SELECT w.sampled_at AS at, p.* FROM eros.history_part w CROSS JOIN LATERAL unnest(w.phases) p
			  WHERE w.sampled_at > coalesce(learn_phases.after, '-infinity') AND w.sampled_at <= coalesce(learn_phases.upto, 'infinity')
			  UNION ALL
			  SELECT 'infinity', p.* FROM eros.sample_phases((SELECT max(r.sampled_at) FROM eros.history_part r)) p
			  WHERE learn_phases.upto IS NULL) s
		GROUP BY 1
	), below AS (
		SELECT c.*, max(c.transitions) OVER () AS first,
			   coalesce(sum(c.users) OVER (w ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0)::bigint AS before
		FROM counted c JOIN eros.phase p USING (phase) WINDOW w AS (ORDER BY c.phase)
	)
	-- who is still on the way has not had the time; a phase that is new has not seen all who became idle
	SELECT b.phase, b.transitions, b.granted, b.used, b.before,
		   CASE WHEN b.first > b.before THEN least(b.transitions / (b.first - b.before)::double precision, 1) END
	FROM below b
$$;
COMMENT ON FUNCTION eros.learn_phases(timestamptz, timestamptz) IS
	'internal: the crossings into each phase and its CPU time after one sample and up to another (NULL: the first; what is not in the history yet, too), how many users were on the way to it at its end, and which part of those who become idle reaches it';

CREATE FUNCTION eros.learn_server(after timestamptz, upto timestamptz,
	OUT covered_s double precision, OUT most_active bigint, OUT most_idle bigint, OUT most_users bigint,
	OUT average_users double precision, OUT returns bigint, OUT writes_per_s double precision,
	OUT scheduler_wal_bytes bigint) RETURNS record
	LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
	WITH part AS MATERIALIZED (
		SELECT w.sampled_at, w.counted_since, w.server, w.most_active, w.most_idle, w.writes_per_s,
			   greatest(w.counted_since - lag(w.sampled_at) OVER (ORDER BY w.sampled_at) - make_interval(secs => w.span_s), interval '0') AS down
		FROM eros.history_part w
		WHERE w.sampled_at > coalesce(learn_server.after, '-infinity') AND w.sampled_at <= coalesce(learn_server.upto, 'infinity')
		UNION ALL
		SELECT eros.now(), l.at, s.*::eros.sample_of_server, s.active_users, s.idle_users, NULL, interval '0'
		FROM (SELECT max(r.sampled_at) AS at FROM eros.history_part r) l
		CROSS JOIN LATERAL eros.sample_server(l.at) s
		WHERE learn_server.upto IS NULL
	), begun AS (
		-- the first sample of a server's life is of nothing: it says what there was
		SELECT min(p.counted_since) AS at FROM part p WHERE p.counted_since < p.sampled_at
	)
	SELECT extract(epoch FROM max(p.sampled_at) - min(b.at)
						- coalesce(sum(p.down) FILTER (WHERE p.counted_since > b.at), interval '0'))::double precision,
		   max(p.most_active), max(p.most_idle),
		   max((p.server).active_users + (p.server).idle_users),
		   (sum(((p.server).active_users + (p.server).idle_users) * t.s) / nullif(sum(t.s), 0))::double precision,
		   sum((p.server).returns)::bigint, max(p.writes_per_s), sum((p.server).scheduler_wal_bytes)::bigint
	FROM part p CROSS JOIN begun b
	CROSS JOIN LATERAL (SELECT greatest(extract(epoch FROM p.sampled_at - p.counted_since), 0)::double precision AS s) t
$$;
COMMENT ON FUNCTION eros.learn_server(timestamptz, timestamptz) IS
	'internal: what was seen of the database after one sample and up to another (NULL: the first; what is not in the history yet, too): seconds covered without those in which the server was down, the most users active, idle, and known, users on average, returns, rows of eros.activity written a second in the busiest minute, and the scheduler''s WAL';

CREATE VIEW eros.status_worth AS
	WITH learned_phase AS MATERIALIZED (SELECT * FROM eros.learn_phases(NULL, NULL))
	SELECT h.name AS handler, h.phase,
		   coalesce(l.results_expired - l.results_unread, 0) AS results_read,
		   coalesce(l.results_unread, 0) AS results_unread,
		   coalesce((l.results_expired - l.results_unread) * c.ms, 0) AS cpu_read_ms,
		   coalesce(l.results_unread * c.ms, 0) AS cpu_unread_ms,
		   u.percent AS unread_percent,
		   CASE WHEN coalesce(l.results_expired, 0) < 100
				THEN 'too early to tell: fewer than 100 results have expired'
				WHEN l.jobs_added > 0 AND l.jobs_refreshing >= 0.2 * l.jobs_added
				THEN format('double its ttl: %s %% of its jobs refresh results before they expire, half of that is saved, %s s of CPU',
							round(100.0 * l.jobs_refreshing / l.jobs_added),
							round((l.cpu_used_ms * l.jobs_refreshing / l.jobs_added / 2 / 1000)::numeric, 1))
				WHEN u.percent < 50 THEN 'keep it: most results are read'
				WHEN n.phase IS NULL THEN 'it is in the last phase: compute less, or only for those who come back'
				WHEN n.back IS NULL THEN 'compute less, or only for those who come back'
				WHEN n.back >= 0.05
				THEN format('move it to phase %s: %s %% of the users come back before that, which saves %s s of CPU',
							n.phase, round(100 * n.back::numeric), round((l.cpu_used_ms * n.back / 1000)::numeric, 1))
				ELSE format('few users come back before phase %s: compute less, or only for those who come back', n.phase)
		   END AS suggestion
	FROM eros.handler h
	LEFT JOIN eros.learn_handlers(NULL, NULL) l USING (handler_id)
	CROSS JOIN LATERAL (SELECT l.cpu_used_ms / nullif(l.results_stored, 0) AS ms) c
	CROSS JOIN LATERAL (SELECT round(100.0 * l.results_unread / nullif(l.results_expired, 0), 1)::double precision AS percent) u
	LEFT JOIN LATERAL (
		SELECT p.phase,
			   1 - (SELECT t.transitions FROM learned_phase t WHERE t.phase = p.phase)
				   / nullif((SELECT t.transitions FROM learned_phase t WHERE t.phase = h.phase), 0)::double precision AS back
		FROM eros.phase p WHERE p.phase > h.phase ORDER BY p.phase LIMIT 1) n ON true
	ORDER BY h.phase, h.name;
COMMENT ON VIEW eros.status_worth IS
	'was it worth it: per handler, CPU spent on results that were read and on results that expired unread, in the last 30 days, and what might be saved';
COMMENT ON COLUMN eros.status_worth.handler IS 'its name';
COMMENT ON COLUMN eros.status_worth.phase IS 'the phase in which it runs';
COMMENT ON COLUMN eros.status_worth.results_read IS 'results that were read before they expired';
COMMENT ON COLUMN eros.status_worth.results_unread IS 'results that expired without having been read; estimated, see eros.status_handler';
COMMENT ON COLUMN eros.status_worth.cpu_read_ms IS 'CPU spent on the former, in ms: their number times the CPU per result stored, failed and halted calls included';
COMMENT ON COLUMN eros.status_worth.cpu_unread_ms IS 'CPU spent on the latter, in ms, likewise';
COMMENT ON COLUMN eros.status_worth.unread_percent IS 'results_unread in percent of both; NULL: none has expired yet';
COMMENT ON COLUMN eros.status_worth.suggestion IS 'what might be done, with its figures';

------------------------------------------------------------------------------
-- Prediction
------------------------------------------------------------------------------

CREATE FUNCTION eros.cpu_formula(workers integer DEFAULT NULL,
	OUT phase smallint, OUT cores double precision) RETURNS SETOF record
	LANGUAGE sql VOLATILE ROWS 3 SET search_path = pg_catalog, pg_temp AS $$
	WITH share AS (
		SELECT p.phase, least(p.cpu_percent, current_setting('eros.cpu_cap')::double precision) / 100 AS share,
			   coalesce(workers, current_setting('eros.workers')::integer) AS workers,
			   current_setting('eros.cpu_cap')::double precision / 100 * eros.cpu_cores() AS cap
		FROM eros.phase p
	), lower AS (
		SELECT s.*, coalesce(sum(s.share) OVER (ORDER BY s.phase ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
		FROM share s
	), mine AS (
		SELECT l.*, l.workers * greatest(least(l.share, 1 - l.before), 0) AS wanted FROM lower l
	)
	SELECT m.phase, m.wanted * least(1, m.cap / nullif(sum(m.wanted) OVER (), 0)) FROM mine m ORDER BY 1
$$;
COMMENT ON FUNCTION eros.cpu_formula(integer) IS
	'the CPU, in cores, that each phase takes while it has work, with so many workers (default: eros.workers). EROS was conceived with CPU = the sum over the phases of users x share; but 100,000 sleeping users are batches of 250 on a constant share, so it is workers x share: each worker gives each phase its share of a core, lower phases first, at most one core in all; all together at most eros.cpu_cap percent of eros.cpu_cores()';

CREATE FUNCTION eros.memory_formula(active_users bigint, cached_results bigint,
	bytes_per_user double precision DEFAULT 1024, bytes_per_result double precision DEFAULT 51200)
	RETURNS double precision
	LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
	AS 'SELECT active_users * bytes_per_user + cached_results * bytes_per_result';
COMMENT ON FUNCTION eros.memory_formula(bigint, bigint, double precision, double precision) IS
	'memory, in bytes: active users x bytes + cached results x bytes. EROS was conceived with 1 KB and 50 KB, the defaults; eros.predict() shows it with these and with the measured sizes';

CREATE FUNCTION eros.tracker_formula(active_users bigint) RETURNS double precision
	LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
	-- P(a partition has more than 7/8 of its slots): Poisson, by the logistic approximation of the normal
	SELECT 256 * (128 + 32 * (32 + coalesce(sum((2 ^ k) / (1 + exp(greatest(least(
			1.702 * (0.875 * 2 ^ k + 0.5 - active_users / 256.0) / sqrt(greatest(active_users, 1) / 256.0), 500), -500)))), 0)))
	FROM generate_series(5, 24) k
$$;
COMMENT ON FUNCTION eros.tracker_formula(bigint) IS
	'shared memory, in bytes, that so many active users take: 256 partitions, each a table of 32 slots of 32 bytes that is doubled when it is 7/8 full; what was taken once is kept';

CREATE FUNCTION eros.drain_formula(work double precision[], share double precision[], workers integer, cap double precision)
	RETURNS double precision
	LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	rate double precision[];
	left_of_core double precision;
	total double precision;
	step double precision;
	seconds double precision := 0;
BEGIN
	IF cardinality(work) > 8 THEN
		RAISE EXCEPTION 'there are at most 8 phases' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	-- each step ends the work of a phase, but for rounding; values that are none end here, too
	FOR n IN 1..32 LOOP
		left_of_core := 1;
		total := 0;
		step := NULL;
		FOR i IN 1..coalesce(cardinality(work), 0) LOOP
			rate[i] := CASE WHEN work[i] > 1e-9 THEN least(share[i], left_of_core) ELSE 0 END;
			left_of_core := left_of_core - rate[i];
			total := total + workers * rate[i];
		END LOOP;
		EXIT WHEN total <= 0;
		FOR i IN 1..cardinality(work) LOOP
			CONTINUE WHEN rate[i] <= 0;
			rate[i] := workers * rate[i] * least(1, cap / total);
			step := least(step, work[i] / rate[i]);
		END LOOP;
		seconds := seconds + step;
		FOR i IN 1..cardinality(work) LOOP
			work[i] := greatest(work[i] - rate[i] * step, 0);
		END LOOP;
	END LOOP;
	IF (SELECT max(w) FROM unnest(work) w) > 1e-9 THEN
		RETURN 'infinity'::double precision;
	END IF;
	RETURN seconds;
END $$;
COMMENT ON FUNCTION eros.drain_formula(double precision[], double precision[], integer, double precision) IS
	'the time, in seconds, until so many workers have done the work of all phases (CPU seconds, and shares of a core, in the phases'' order), at most cap cores in all: each worker gives each phase with work its share, lower phases first, until one is done, and so on; infinity when they never are';

CREATE FUNCTION eros.dead_rows(rows double precision, writes_per_s double precision) RETURNS double precision
	LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT 50 + 0.05 * rows + writes_per_s * extract(epoch FROM current_setting('autovacuum_naptime')::interval)
$$;
COMMENT ON FUNCTION eros.dead_rows(double precision, double precision) IS
	'how many dead rows a table of EROS has at most: 50 and 5 percent (it is vacuumed then), and what is written until autovacuum comes by, each autovacuum_naptime';

CREATE FUNCTION eros.activity_formula(users bigint, dead_rows double precision DEFAULT 0, fill_percent double precision DEFAULT 70)
	RETURNS double precision
	LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
	AS 'SELECT 8192 * 11 + (users + dead_rows) * (60 + 2 * 28 / (fill_percent / 100))';
COMMENT ON FUNCTION eros.activity_formula(bigint, double precision, double precision) IS
	'what eros.activity takes on disk with so many idle users and dead rows, see eros.dead_rows(), in bytes: for each a tuple of 60 and two index entries of 28 in pages so full, and eleven pages (three of the free space map, the visibility map, two metapages, two roots, two that an index of an unlogged table is made anew from, one being filled). A table that was ever larger stays so until VACUUM FULL';

CREATE FUNCTION eros.job_formula(jobs double precision, dead_rows double precision DEFAULT 0, fill_percent double precision DEFAULT 70)
	RETURNS double precision
	LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
	AS 'SELECT 8192 * 9 + (jobs + dead_rows) * (68 + (36 + 28) / (fill_percent / 100))';
COMMENT ON FUNCTION eros.job_formula(double precision, double precision, double precision) IS
	'what eros.job takes on disk with so many jobs and dead rows, in bytes: for each a tuple of 68 and index entries of 36 and 28 in pages so full, and nine pages. A table that was ever larger stays so until VACUUM FULL';

CREATE FUNCTION eros.history_formula(phases bigint, handlers bigint) RETURNS double precision
	LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
	AS 'SELECT 8192 * 12 + 2160 * (2 * (304 + phases * 104 + handlers * 216) + 40)::double precision';
COMMENT ON FUNCTION eros.history_formula(bigint, bigint) IS
	'what eros.history_ring takes on disk at most when it is full, in bytes: 2,160 rows of 304, 104 for a phase and 216 for a handler, before compression, in pages half full, and an index';

CREATE FUNCTION eros.job_wal_bytes() RETURNS double precision
	LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
	AS 'SELECT 330.0::double precision';
COMMENT ON FUNCTION eros.job_wal_bytes() IS
	'WAL for the creation of a job, in bytes, without full page images: a tuple, two index entries, a part of the commit';

CREATE FUNCTION eros.result_wal_bytes(result_bytes double precision) RETURNS double precision
	LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
	AS 'SELECT result_bytes + 359';
COMMENT ON FUNCTION eros.result_wal_bytes(double precision) IS
	'WAL for a job that is done, in bytes, without full page images: the job locked and deleted, the stored result with its index entries';

CREATE FUNCTION eros.batch_wal_bytes() RETURNS double precision
	LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
	AS 'SELECT 240.0::double precision';
COMMENT ON FUNCTION eros.batch_wal_bytes() IS
	'WAL for a batch besides that of its jobs, in bytes, without full page images: the commit, and what each page touched costs once';

CREATE FUNCTION eros.check_question(
	users bigint, active_users bigint, idles_per_day double precision, cost_ms double precision,
	result_bytes double precision, workers integer, within interval) RETURNS boolean
	LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	bad text;
BEGIN
	bad := CASE WHEN users IS NULL OR users < 0 OR users > 1e12 THEN 'users'
				WHEN active_users < 0 OR active_users > 1e12 THEN 'active_users'
				WHEN idles_per_day < 0 OR idles_per_day > 86400 THEN 'idles_per_day'
				WHEN cost_ms IS NULL OR cost_ms < 0 OR cost_ms > 1e9 THEN 'cost_ms'
				WHEN result_bytes IS NULL OR result_bytes < 0 OR result_bytes > 1e9 THEN 'result_bytes'
				WHEN workers < 1 OR workers > 64 THEN 'workers'
				WHEN within IS NULL OR within <= '0' THEN 'within' END;
	IF bad IS NOT NULL THEN
		RAISE EXCEPTION '% is out of range', bad USING ERRCODE = 'invalid_parameter_value',
			HINT = 'users, active_users: 0 to 1e12; idles_per_day: 0 to 86400; cost_ms, result_bytes: 0 to 1e9; workers: 1 to 64; within: more than 0; done_by: later than eros.now().';
	END IF;
	RETURN true;
END $$;
COMMENT ON FUNCTION eros.check_question(bigint, bigint, double precision, double precision, double precision, integer, interval) IS
	'true, or error 22023 when an argument of eros.predict() is out of range';

/*
 * The formulas, going by what was learned up to a sample of the history: by all
 * of it for eros.predict(), by the first part of it for eros.status_prediction,
 * which holds the rest against it.
 */
CREATE FUNCTION eros.forecast(
	users bigint, active_users bigint, idles_per_day double precision, cost_ms double precision,
	result_bytes double precision, workers integer, within interval, upto timestamptz,
	OUT quantity text, OUT phase smallint, OUT handler text, OUT value double precision, OUT unit text, OUT basis text)
	RETURNS SETOF record
	LANGUAGE sql VOLATILE ROWS 40 SET search_path = pg_catalog, pg_temp SET jit = off AS $$
	WITH given AS MATERIALIZED (
		SELECT forecast.users AS users,
			   coalesce(forecast.workers, current_setting('eros.workers')::integer) AS workers,
			   current_setting('eros.cpu_cap')::double precision / 100 * eros.cpu_cores() AS cap,
			   s.covered_s, s.most_active, nullif(s.average_users, 0) AS average_users, s.returns, s.writes_per_s, s.scheduler_wal_bytes
		FROM eros.learn_server(NULL, forecast.upto) s
		WHERE eros.check_question(forecast.users, forecast.active_users, forecast.idles_per_day, forecast.cost_ms, forecast.result_bytes,
								  forecast.workers, forecast.within)
	), split AS MATERIALIZED (
		-- who is active at the same time, and who is idle then
		SELECT g.*, a.active, g.users - a.active AS idle, a.basis
		FROM given g CROSS JOIN LATERAL (
			SELECT least(g.users, coalesce(forecast.active_users, round(g.users * nullif(g.most_active, 0)::double precision / greatest(g.most_active, g.average_users)),
										   round(g.users * 0.02)))::bigint AS active,
				   CASE WHEN forecast.active_users IS NOT NULL THEN 'given'
						WHEN g.most_active > 0 THEN 'measured: most active at a time here' ELSE 'guess: 2 % of the users' END AS basis) a
	), learned_phase AS MATERIALIZED (SELECT * FROM eros.learn_phases(NULL, forecast.upto)),
	learned_handler AS MATERIALIZED (SELECT * FROM eros.learn_handlers(NULL, forecast.upto)),
	phase AS MATERIALIZED (
		-- crossings a second: as measured here per user, or by idles_per_day
		SELECT p.phase, f.cores AS limit_cores, least(p.cpu_percent, current_setting('eros.cpu_cap')::double precision) / 100 AS share,
			   row_number() OVER (ORDER BY p.phase) = 1 AS is_first,
			   CASE WHEN forecast.idles_per_day IS NULL AND first.transitions > 0 AND s.average_users > 0 AND s.covered_s >= 60
					THEN s.users * (first.transitions / s.covered_s / s.average_users)
					ELSE s.users * coalesce(forecast.idles_per_day, 3) / 86400 END * coalesce(l.reach, 1) AS crossings,
			   CASE WHEN forecast.idles_per_day IS NOT NULL THEN 'given'
					WHEN first.transitions > 0 AND s.average_users > 0 AND s.covered_s >= 60 THEN 'measured' ELSE 'guess: 3 idle times a user and day' END AS basis
		FROM split s CROSS JOIN eros.phase p
		JOIN eros.cpu_formula(forecast.workers) f USING (phase)
		LEFT JOIN learned_phase l USING (phase)
		LEFT JOIN LATERAL (SELECT o.transitions FROM learned_phase o ORDER BY o.phase LIMIT 1) first ON true
	), handler AS MATERIALIZED (
		-- without a handler: an imaginary one in each phase
		SELECT h.name AS handler, h.phase, coalesce(l.cost_ms, forecast.cost_ms) AS cost_ms,
			   coalesce(l.entry_bytes, forecast.result_bytes + 120) AS entry_bytes,
			   coalesce(l.results_per_job, 1) AS results_per_job,
			   coalesce(l.created_per_crossing, 1) AS created_per_crossing, coalesce(l.jobs_per_crossing, 1) AS jobs_per_crossing,
			   coalesce(l.wal_per_job, eros.result_wal_bytes(forecast.result_bytes) + eros.batch_wal_bytes() / p.batch_size) AS wal_per_job,
			   l.images_per_job, CASE WHEN l.users_done > 0 THEN 'measured' ELSE 'guess' END AS basis
		FROM eros.handler h JOIN eros.phase p USING (phase) LEFT JOIN learned_handler l USING (handler_id)
		WHERE h.enabled
		UNION ALL
		SELECT NULL, p.phase, forecast.cost_ms, forecast.result_bytes + 120, 1, 1, 1,
			   eros.result_wal_bytes(forecast.result_bytes) + eros.batch_wal_bytes() / p.batch_size, NULL, 'guess'
		FROM eros.phase p WHERE NOT EXISTS (SELECT FROM eros.handler h WHERE h.enabled)
	), load AS MATERIALIZED (
		SELECT h.*, p.share, p.limit_cores, p.crossings * h.jobs_per_crossing AS jobs, p.crossings * h.created_per_crossing AS created,
			   s.idle * h.results_per_job AS results, s.idle * h.cost_ms / 1000 AS work_s
		FROM handler h JOIN phase p USING (phase) CROSS JOIN split s
	), total AS MATERIALIZED (
		SELECT coalesce(sum(l.results), 0)::bigint AS results, coalesce(sum(l.results * l.entry_bytes), 0) AS result_bytes,
			   coalesce(sum(l.created), 0) AS created, coalesce(sum(l.jobs), 0) AS jobs, coalesce(sum(l.jobs * l.wal_per_job), 0) AS wal,
			   sum(l.jobs * l.images_per_job) AS images, count(*) AS handlers,
			   (SELECT sum(p.crossings) FROM phase p) AS crossings,
			   -- each who becomes idle had been active: his row goes when he returns
			   (SELECT p.crossings FROM phase p WHERE p.is_first)
				   * least(coalesce(s.returns / nullif((SELECT o.transitions FROM learned_phase o ORDER BY o.phase LIMIT 1), 0)::double precision, 1), 1) AS returns,
			   -- what the scheduler writes besides the jobs: samples, snapshots, partitions
			   coalesce(greatest(s.scheduler_wal_bytes - (SELECT coalesce(sum(h.jobs_added), 0) FROM learned_handler h) * eros.job_wal_bytes(), 0)
						/ nullif(s.covered_s, 0), 0) AS upkeep_wal,
			   -- rows of eros.activity written in the busiest minute
			   coalesce(s.writes_per_s / s.average_users * s.users, 0) AS busiest_writes
		FROM load l CROSS JOIN split s GROUP BY s.returns, s.scheduler_wal_bytes, s.covered_s, s.writes_per_s, s.average_users, s.users
	), work AS MATERIALIZED (
		SELECT array_agg(coalesce(w.work_s, 0) ORDER BY p.phase) AS work, array_agg(p.share ORDER BY p.phase) AS share
		FROM phase p LEFT JOIN (SELECT l.phase, sum(l.work_s) AS work_s FROM load l GROUP BY 1) w USING (phase)
	), bound AS MATERIALIZED (
		SELECT pg_size_bytes(current_setting('eros.cache_limit')) AS cache, i.tracker_limit_bytes AS tracker FROM eros.database_info() i
	), answer (n, quantity, phase, handler, value, unit, basis) AS (
		SELECT 10, 'active users', NULL::smallint, NULL::text, s.active::double precision, 'users', s.basis FROM split s
		UNION ALL
		SELECT 11, 'idle users', NULL, NULL, s.idle, 'users', 'all but the active ones' FROM split s
		UNION ALL
		SELECT 20, 'transitions', p.phase, NULL, p.crossings, 'per second', p.basis FROM phase p
		UNION ALL
		SELECT 21, 'jobs', l.phase, l.handler, l.jobs, 'per second', 'crossings x jobs per crossing, ' || l.basis FROM load l
		UNION ALL
		SELECT 30, 'cpu', l.phase, l.handler, l.jobs * l.cost_ms / 1000, 'cores',
			   format('jobs x %s ms, %s', round(l.cost_ms::numeric, 3), l.basis) FROM load l
		UNION ALL
		SELECT 31, 'cpu', l.phase, NULL, sum(l.jobs * l.cost_ms / 1000), 'cores',
			   'sum of its handlers' || CASE WHEN sum(l.jobs * l.cost_ms / 1000) > min(l.limit_cores) THEN '; more than this phase gets' ELSE '' END
		FROM load l WHERE l.handler IS NOT NULL GROUP BY l.phase
		UNION ALL
		SELECT 32, 'cpu', NULL, NULL, coalesce(sum(l.jobs * l.cost_ms / 1000), 0), 'cores', 'sum of the phases' FROM load l
		UNION ALL
		SELECT 33, 'cpu at most', p.phase, NULL, p.limit_cores, 'cores', 'eros.cpu_formula(): workers x share' FROM phase p
		UNION ALL
		SELECT 34, 'cpu at most', NULL, NULL, sum(p.limit_cores), 'cores', 'sum of the phases, at most eros.cpu_cap' FROM phase p
		UNION ALL
		SELECT 40, 'shared memory', NULL, NULL, eros.tracker_formula(s.active), 'bytes',
			   'eros.tracker_formula(): active users' || CASE WHEN eros.tracker_formula(s.active) > b.tracker
				   THEN format('; more than eros.tracker_memory, %s: the rest spills to eros.activity', pg_size_pretty(b.tracker)) ELSE '' END
		FROM split s CROSS JOIN bound b
		UNION ALL
		SELECT 41, 'shared memory, fixed', NULL, NULL, m.shared_bytes, 'bytes', 'slots of databases, workers and handlers, by their settings'
		FROM eros.monitor_info() m
		UNION ALL
		SELECT 42, 'memory', NULL, NULL, eros.memory_formula(s.active, t.results,
				eros.tracker_formula(s.active) / greatest(s.active, 1), coalesce(t.result_bytes / nullif(t.results, 0), 0)), 'bytes',
			   'eros.memory_formula() with the measured sizes'
		FROM split s CROSS JOIN total t
		UNION ALL
		SELECT 43, 'memory as conceived', NULL, NULL, eros.memory_formula(s.active, t.results), 'bytes',
			   'eros.memory_formula() with 1 KB a user and 50 KB a result'
		FROM split s CROSS JOIN total t
		UNION ALL
		SELECT 50, 'eros.activity', NULL, NULL, eros.activity_formula(s.idle, eros.dead_rows(s.idle, greatest(t.busiest_writes, t.crossings + t.returns))), 'bytes',
			   format('eros.activity_formula(): idle users, and dead rows with %s writes a second', round(greatest(t.busiest_writes, t.crossings + t.returns)::numeric, 1))
		FROM split s CROSS JOIN total t
		UNION ALL
		SELECT 51, 'eros.job', NULL, NULL, eros.job_formula(s.idle * t.handlers, eros.dead_rows(s.idle * t.handlers, t.created + t.jobs)), 'bytes',
			   'eros.job_formula(): at most, with a job of each handler for each idle user, and dead rows' FROM split s CROSS JOIN total t
		UNION ALL
		SELECT 52, 'eros.cache', l.phase, l.handler, l.results * l.entry_bytes, 'bytes',
			   format('idle users x %s bytes a result, %s', round(l.entry_bytes), l.basis) FROM load l
		UNION ALL
		SELECT 53, 'eros.cache', NULL, NULL, t.result_bytes, 'bytes', 'sum of the handlers; live results'
			   || CASE WHEN b.cache > 0 AND t.result_bytes > b.cache
				  THEN format('; more than eros.cache_limit, %s: the oldest are evicted', pg_size_pretty(b.cache)) ELSE '' END
		FROM total t CROSS JOIN bound b
		UNION ALL
		SELECT 54, 'eros.snapshot', NULL, NULL, 3.0 * 8192 + s.users * CASE WHEN k.uuids THEN 20 ELSE 7 END * 2, 'bytes',
			   'twice, while it is refreshed: ' || CASE WHEN k.uuids THEN '20 bytes a user, some being a uuid' ELSE '7 bytes a user, all being a bigint' END
		FROM split s CROSS JOIN (SELECT EXISTS (SELECT FROM eros.handler h WHERE h.enabled AND h.user_type = 'uuid') AS uuids) k
		UNION ALL
		SELECT 55, 'eros.history_ring', NULL, NULL,
			   eros.history_formula((SELECT count(*) FROM eros.phase p), (SELECT count(*) FROM eros.handler h)), 'bytes', 'eros.history_formula(): at most'
		UNION ALL
		SELECT 60, 'wal', l.phase, l.handler, l.jobs * l.wal_per_job, 'bytes per second',
			   format('jobs x %s bytes, %s', round(l.wal_per_job), l.basis) FROM load l WHERE l.handler IS NOT NULL
		UNION ALL
		SELECT 61, 'wal', NULL, NULL, t.wal + t.created * eros.job_wal_bytes() + t.upkeep_wal, 'bytes per second',
			   'jobs done, jobs created by eros.job_wal_bytes(), and what the scheduler wrote here besides'
		FROM total t
		UNION ALL
		SELECT 62, 'full page images', NULL, NULL,
			   CASE WHEN NOT f.images THEN 0
					WHEN t.images IS NOT NULL THEN t.images * 8192
					ELSE least(4 * t.jobs, (eros.job_formula(s.idle * t.handlers) + t.result_bytes) / 8192
							   / extract(epoch FROM current_setting('checkpoint_timeout')::interval)::double precision) * 8192 END,
			   'bytes per second',
			   CASE WHEN NOT f.images THEN 'full_page_writes is off'
					WHEN t.images IS NOT NULL THEN 'at most: images a job as measured, of 8 kB; they are in ''wal'''
					ELSE 'guess, on top of ''wal'': four pages a job, each once in a checkpoint_timeout' END
		FROM total t CROSS JOIN split s CROSS JOIN (SELECT current_setting('full_page_writes')::boolean AS images) f
		UNION ALL
		SELECT 63, 'rows written', NULL, NULL, t.crossings + t.returns + t.created * 2 + t.jobs * 2, 'per second',
			   'a row of eros.activity a crossing, and its deletion a return; a job made and deleted, a result stored and its predecessor deleted'
		FROM total t
		UNION ALL
		SELECT 70, 'time until all idle are done', NULL, NULL, eros.drain_formula(w.work, w.share, s.workers, s.cap), 'seconds',
			   format('eros.drain_formula(): every handler once for each idle user, %s workers', s.workers)
		FROM work w CROSS JOIN split s
		UNION ALL
		SELECT 71, 'workers to be done in time', NULL, NULL, n.workers, 'workers',
			   format('the fewest that are done within %s; NULL: not with %s cores', forecast.within, round(s.cap::numeric, 2))
			   || CASE WHEN n.workers > current_setting('eros.max_workers')::integer
				  THEN format('; more than eros.max_workers, %s', current_setting('eros.max_workers'))
				  WHEN n.workers > current_setting('max_worker_processes')::integer - 2
				  THEN format('; more than max_worker_processes, %s, has room for', current_setting('max_worker_processes')) ELSE '' END
		FROM split s CROSS JOIN work w LEFT JOIN LATERAL (
			SELECT c.workers FROM generate_series(1, 64) c (workers)
			WHERE eros.drain_formula(w.work, w.share, c.workers, s.cap) <= extract(epoch FROM forecast.within)
			ORDER BY 1 LIMIT 1) n ON true
	)
	SELECT a.quantity, a.phase, a.handler, a.value, a.unit, a.basis FROM answer a ORDER BY a.n, a.phase NULLS LAST, a.handler NULLS LAST
$$;
COMMENT ON FUNCTION eros.forecast(bigint, bigint, double precision, double precision, double precision, integer, interval, timestamptz) IS
	'internal: the answer of eros.predict(), by what was learned up to a sample of the history; NULL: by all';

CREATE FUNCTION eros.predict(
	users bigint,
	active_users bigint DEFAULT NULL,
	idles_per_day double precision DEFAULT NULL,
	cost_ms double precision DEFAULT 5,
	result_bytes double precision DEFAULT 51200,
	workers integer DEFAULT NULL,
	within interval DEFAULT '8 hours',
	done_by timestamptz DEFAULT NULL,
	OUT quantity text, OUT phase smallint, OUT handler text, OUT value double precision, OUT unit text, OUT basis text)
	RETURNS SETOF record
	LANGUAGE sql VOLATILE ROWS 40 SET search_path = pg_catalog, pg_temp AS $$
	SELECT f.* FROM eros.forecast(predict.users, predict.active_users, predict.idles_per_day, predict.cost_ms, predict.result_bytes,
		predict.workers, coalesce(predict.done_by - eros.now(), predict.within), NULL) f
$$;
COMMENT ON FUNCTION eros.predict(bigint, bigint, double precision, double precision, double precision, integer, interval, timestamptz) IS
	'what so many users would cost here: CPU per phase and handler, shared memory, sizes, WAL and rows written, how long until everybody who is idle has been processed, how many workers are done within a time, or by an hour: done_by. What ran here in the last 30 days is what it goes by; the other parameters are for what has not been measured: users active at the same time, times a day that a user becomes idle, CPU per user and call in ms, bytes of a result. The first two, when given, are taken instead of what was measured. Error 22023 for a number that is negative or too large, for more than 64 workers, and for a time that is not positive';

CREATE FUNCTION eros.prediction_cut() RETURNS timestamptz
	LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
	WITH covered AS MATERIALIZED (
		SELECT min(w.counted_since) FILTER (WHERE w.counted_since < w.sampled_at) AS since, eros.now() AS upto FROM eros.history_part w)
	SELECT w.sampled_at
	FROM covered c CROSS JOIN eros.history_part w
	WHERE w.span_s = 60 AND w.sampled_at > c.since AND w.sampled_at < c.upto
	ORDER BY abs(extract(epoch FROM w.sampled_at - greatest(c.since + (c.upto - c.since) / 2, c.upto - interval '22 hours'))), w.sampled_at
	LIMIT 1
$$;
COMMENT ON FUNCTION eros.prediction_cut() IS
	'internal: the sample up to which eros.status_prediction learns, what came after it being predicted: a minute''s, the one 22 hours ago, or half way while the history is of less than 44 hours; NULL: there is none';

CREATE VIEW eros.status_prediction AS
	WITH cut AS MATERIALIZED (SELECT eros.prediction_cut() AS at),
	i AS MATERIALIZED (SELECT * FROM eros.database_info()),
	phase_after AS MATERIALIZED (SELECT l.* FROM cut c CROSS JOIN LATERAL eros.learn_phases(c.at, NULL) l WHERE c.at IS NOT NULL),
	seen AS MATERIALIZED (
		-- what a planner would have known: how many users there would be, and how often they would become idle
		SELECT c.at, s.scheduler_wal_bytes, extract(epoch FROM eros.now() - c.at)::double precision AS elapsed_s,
			   greatest(s.most_active, e.most_active) AS active, greatest(s.most_idle, e.most_idle) AS idle, s.most_idle AS idle_lately,
			   (SELECT l.transitions FROM phase_after l ORDER BY l.phase LIMIT 1) AS idles
		FROM cut c CROSS JOIN LATERAL eros.learn_server(c.at, NULL) s CROSS JOIN LATERAL eros.learn_server(NULL, c.at) e
		WHERE c.at IS NOT NULL
	), forecast AS MATERIALIZED (
		SELECT f.*, s.elapsed_s
		FROM seen s CROSS JOIN LATERAL eros.forecast(s.idle + s.active, s.active,
			least(coalesce(s.idles * 86400 / nullif(s.elapsed_s, 0) / nullif(s.idle + s.active, 0), 0), 86400),
			5, 51200, NULL, '8 hours', s.at) f
	), crossed AS MATERIALIZED (
		-- with those who were on the way, without those who are
		SELECT f.phase, after.transitions, f.value * f.elapsed_s AS steady,
			   greatest(f.value * f.elapsed_s + (before.before - after.before) * coalesce(before.reach, 1), 0) AS crossings
		FROM seen s CROSS JOIN LATERAL eros.learn_phases(NULL, s.at) before
		JOIN phase_after after USING (phase)
		JOIN forecast f ON f.quantity = 'transitions' AND f.phase = before.phase
	), handler AS MATERIALIZED (
		SELECT h.name AS handler, h.phase, after.users_done, after.cpu_used_ms, after.wal_bytes, before.cost_ms, before.wal_per_job,
			   greatest(t.crossings * coalesce(before.jobs_per_crossing, 1) + before.left_over - coalesce(after.left_over, 0), 0) AS jobs,
			   t.steady * coalesce(before.jobs_per_crossing, 1) AS steady_jobs
		FROM seen s CROSS JOIN LATERAL eros.learn_handlers(NULL, s.at) before
		JOIN LATERAL eros.learn_handlers(s.at, NULL) after USING (handler_id)
		JOIN eros.handler h USING (handler_id)
		JOIN crossed t ON t.phase = h.phase
		WHERE before.users_done > 0 AND h.enabled
	), known AS MATERIALIZED (
		-- sums are of what was learned alone
		SELECT EXISTS (SELECT FROM handler) AND NOT EXISTS (
			SELECT FROM eros.handler e WHERE e.enabled AND e.name NOT IN (SELECT h.handler FROM handler h)) AS "all"
	), figure (n, quantity, phase, handler, predicted, measured, unit) AS (
		SELECT 1, 'transitions', t.phase, NULL::text, t.crossings, t.transitions::double precision, 'users'
		FROM crossed t WHERE t.phase > (SELECT min(p.phase) FROM eros.phase p)
		UNION ALL
		SELECT 2, 'jobs', h.phase, h.handler, h.jobs, h.users_done::double precision, 'jobs' FROM handler h
		UNION ALL
		SELECT 3, 'cpu', h.phase, h.handler, h.jobs * h.cost_ms / 1000, h.cpu_used_ms / 1000, 'seconds' FROM handler h
		UNION ALL
		SELECT 3, 'cpu', NULL, NULL, sum(h.jobs * h.cost_ms) / 1000, sum(h.cpu_used_ms) / 1000, 'seconds' FROM handler h HAVING count(*) > 1
		UNION ALL
		-- of all databases of the server
		SELECT 4, 'shared memory', NULL, NULL, eros.tracker_formula(greatest(i.tracker_users, s.active)), i.tracker_bytes, 'bytes'
		FROM seen s CROSS JOIN i
		UNION ALL
		SELECT 5, 'eros.cache', NULL, NULL, f.value * s.idle_lately / nullif(s.idle, 0), i.cache_bytes, 'bytes'
		FROM forecast f CROSS JOIN seen s CROSS JOIN i CROSS JOIN known k WHERE f.quantity = 'eros.cache' AND f.handler IS NULL AND k."all"
		UNION ALL
		SELECT 6, 'eros.activity', NULL, NULL, f.value, pg_total_relation_size(to_regclass('eros.activity')), 'bytes'
		FROM forecast f WHERE f.quantity = 'eros.activity'
		UNION ALL
		SELECT 7, 'wal', h.phase, h.handler, h.jobs * h.wal_per_job, h.wal_bytes, 'bytes' FROM handler h
		UNION ALL
		-- less the jobs of the batches as the rates have them, and with them as above
		SELECT 8, 'wal', NULL, NULL, f.value * f.elapsed_s + h.difference, h.wal_bytes + s.scheduler_wal_bytes, 'bytes'
		FROM forecast f CROSS JOIN seen s CROSS JOIN known k
		CROSS JOIN (SELECT sum((h.jobs - h.steady_jobs) * h.wal_per_job) AS difference, sum(h.wal_bytes) AS wal_bytes FROM handler h) h
		WHERE f.quantity = 'wal' AND f.handler IS NULL AND f.phase IS NULL AND k."all"
	)
	SELECT b.quantity, b.phase, b.handler, b.predicted, b.measured, b.unit,
		   round((100 * (b.predicted - b.measured) / nullif(b.measured, 0))::numeric, 1)::double precision AS error_percent
	FROM figure b ORDER BY b.n, b.phase NULLS LAST, b.handler NULLS LAST;
COMMENT ON VIEW eros.status_prediction IS
	'what eros.predict() would have said before, beside what was measured: it learns from the history up to 22 hours ago (half way, while the history is of less than 44 hours), and is asked for the time since then, with the users and the times that they became idle as they came to be';
COMMENT ON COLUMN eros.status_prediction.quantity IS
	'transitions: into the phases after the first; jobs: done, with those that waited before and without those that wait now; cpu: of these; shared memory: of the active users, of whom the most who were seen at a time count; eros.cache: live results, now; eros.activity: on disk, now; wal: of the handler''s batches, and in all with what the scheduler writes. eros.cache and wal in all only when all enabled handlers had done jobs before';
COMMENT ON COLUMN eros.status_prediction.phase IS 'the phase, where it is of one';
COMMENT ON COLUMN eros.status_prediction.handler IS 'the handler, where it is of one; only one that had done jobs before';
COMMENT ON COLUMN eros.status_prediction.predicted IS 'what the formulas say, from what was learned before';
COMMENT ON COLUMN eros.status_prediction.measured IS 'what was measured since';
COMMENT ON COLUMN eros.status_prediction.unit IS 'users, jobs, seconds or bytes';
COMMENT ON COLUMN eros.status_prediction.error_percent IS 'predicted against measured, in percent of measured; NULL: nothing was measured';

------------------------------------------------------------------------------
-- Checklist
------------------------------------------------------------------------------

CREATE FUNCTION eros.checklist(
	OUT item integer, OUT level text, OUT topic text, OUT state text, OUT measured text, OUT threshold text, OUT advice text)
	RETURNS SETOF record
	LANGUAGE sql VOLATILE ROWS 16 SET search_path = pg_catalog, pg_temp SET jit = off AS $$
	WITH i AS MATERIALIZED (SELECT * FROM eros.database_info()),
	s AS MATERIALIZED (SELECT * FROM eros.learn_server(NULL, NULL)),
	last_phase AS MATERIALIZED (SELECT max(p.phase) AS phase FROM eros.phase p),
	cpu AS MATERIALIZED (
		SELECT l.phase, p.used, p.granted FROM last_phase l
		LEFT JOIN (SELECT h.phase, h.cpu_used_ms AS used, h.cpu_granted_ms AS granted FROM eros.learn_phases(NULL, NULL) h) p USING (phase)
	), halt AS MATERIALIZED (SELECT * FROM eros.halt_info()),
	latency AS MATERIALIZED (
		SELECT l.operation, l.measured, l.p99_ms, t.limit_ms
		FROM eros.latency_info() l JOIN (VALUES ('claim', 50.0), ('store', 500.0), ('get', 5.0), ('sweep', 1000.0)) t (operation, limit_ms) USING (operation)
	), queue AS MATERIALIZED (
		-- what a further worker would do
		SELECT max(q.oldest_wait) AS oldest_wait FROM eros.status_queue q JOIN eros.handler h ON h.name = q.handler WHERE h.enabled AND h.error IS NULL),
	worker AS MATERIALIZED (
		-- percent of a core since its start, of those that have run for a while
		SELECT count(*) AS running, min(r.busy) FILTER (WHERE r.age_s > 600) AS least, max(r.busy) FILTER (WHERE r.age_s > 600) AS most
		FROM eros.worker_info() w
		CROSS JOIN LATERAL (SELECT extract(epoch FROM clock_timestamp() - w.started)::double precision AS age_s) a
		CROSS JOIN LATERAL (SELECT a.age_s, w.cpu_used_ms / 10 / nullif(a.age_s, 0) AS busy) r
	), handler AS MATERIALIZED (
		SELECT count(*) AS handlers, sum(h.hits) AS hits, sum(h.misses) AS misses FROM eros.status_handler h WHERE h.enabled
	), monitor AS MATERIALIZED (SELECT * FROM eros.monitor_info()),
	timeline AS MATERIALIZED (SELECT c.timeline_id FROM pg_control_checkpoint() c),
	replica AS MATERIALIZED (
		-- streaming: no base backup; replaying: none that only receives WAL; physical: a logical walsender has a database
		SELECT count(*) AS replicas, count(DISTINCT coalesce(r.client_addr::text, 'here')) AS places
		FROM pg_stat_replication r JOIN pg_stat_activity a USING (pid)
		WHERE r.state = 'streaming' AND r.replay_lsn IS NOT NULL AND a.datid IS NULL
	), elsewhere AS MATERIALIZED (
		SELECT (SELECT count(*) FROM pg_foreign_server) AS servers, (SELECT count(*) FROM pg_publication) AS publications
	), table_size AS MATERIALIZED (
		SELECT max(pg_total_relation_size(t)) AS bytes
		FROM unnest(ARRAY['eros.activity', 'eros.job']::regclass[]
			|| ARRAY(SELECT c.partition FROM eros.cache_partitions() c)) t
	), list (item, needed_from, level, topic, state, measured, threshold, advice) AS (
		SELECT 1, 0, '1K', format('CPU of phase %s watched', c.phase),
			   CASE WHEN c.used IS NULL OR c.granted = 0 THEN 'to do' WHEN c.used > 1.1 * c.granted + 1000 THEN 'attention' ELSE 'ok' END,
			   format('%s s used, %s s granted, in 30 days', round((coalesce(c.used, 0) / 1000)::numeric, 1), round((coalesce(c.granted, 0) / 1000)::numeric, 1)),
			   'used at most 110 % of granted',
			   CASE WHEN coalesce(c.granted, 0) = 0 THEN 'nothing has run in this phase yet: register a handler for it, and look again'
					ELSE 'look at eros.history_phase; a handler whose C code does not check for interrupts cannot be paced' END
		FROM cpu c
		UNION ALL
		SELECT 2, 0, '1K', 'halt response',
			   CASE WHEN h.halts = 0 THEN 'to do' WHEN h.slow <= 0.01 * h.halts AND h.forced = 0 THEN 'ok' ELSE 'attention' END,
			   CASE WHEN h.halts = 0 THEN 'no halt yet' ELSE format('p99 %s ms, longest %s ms, of %s halts, %s longer than 500 ms; %s workers terminated',
					round(h.p99_ms::numeric, 1), round(h.max_ms::numeric, 1), h.halts, h.slow, h.forced) END,
			   '99 % within 500 ms, none terminated',
			   CASE WHEN h.halts = 0 THEN 'touch users while a worker computes for them, and look again'
					ELSE 'lower the handlers'' work_mem; see Troubleshooting in docs/operations.md' END
		FROM halt h
		UNION ALL
		SELECT 3, 0, '1K', 'memory of the activity tracker',
			   CASE WHEN i.touches_lost > 0 OR i.users_spilled > 0 OR i.tracker_users > 0.75 * i.tracker_capacity THEN 'attention' ELSE 'ok' END,
			   format('%s users of %s, %s', i.tracker_users, i.tracker_capacity, pg_size_pretty(i.tracker_bytes)),
			   'at most 75 % full, nobody spilled', 'raise eros.tracker_memory'
		FROM i
		UNION ALL
		SELECT 4, 0, '1K', 'database query performance',
			   CASE WHEN coalesce(min(l.measured) FILTER (WHERE l.operation <> 'store'), 0) = 0 THEN 'to do' WHEN bool_or(l.p99_ms > l.limit_ms) THEN 'attention' ELSE 'ok' END,
			   coalesce(string_agg(format('%s %s ms', l.operation, round(l.p99_ms::numeric, 2)), ', ' ORDER BY l.operation) FILTER (WHERE l.measured > 0), 'nothing yet'),
			   'p99: claim 50 ms, get 5 ms, store 500 ms, sweep 1000 ms; all measured',
			   'look at eros.status_latency; end long transactions, which keep dead rows of eros.job; see whether the disk is slow'
		FROM latency l
		UNION ALL
		SELECT 5, 1000, '10K', 'second worker, and balance between workers',
			   CASE WHEN current_setting('eros.workers')::integer < 2
					THEN CASE WHEN q.oldest_wait > interval '1 hour' THEN 'to do' ELSE 'does not apply' END
					WHEN w.running < 2 THEN 'ok' WHEN w.least < 0.25 * w.most THEN 'attention' ELSE 'ok' END,
			   format('%s of %s workers run%s; longest wait %s', w.running, current_setting('eros.workers'),
					  CASE WHEN w.least IS NOT NULL THEN format(', CPU %s to %s %% of a core', round(w.least::numeric, 1), round(w.most::numeric, 1)) END,
					  coalesce(date_trunc('second', q.oldest_wait)::text, 'none')),
			   'a second one when jobs wait for an hour; of those that run for 10 minutes, the least busy has a quarter of the CPU of the busiest',
			   'raise eros.workers; what a worker does is in eros.status_worker'
		FROM worker w CROSS JOIN queue q
		UNION ALL
		SELECT 6, 1000, '10K', 'cache in place, hit rate and size',
			   CASE WHEN h.handlers = 0 OR i.cache_bytes = 0 THEN 'to do'
					WHEN h.hits + h.misses = 0 THEN 'to do'
					WHEN h.hits < 0.8 * (h.hits + h.misses) OR i.cache_bytes > 0.9 * nullif(pg_size_bytes(current_setting('eros.cache_limit')), 0) THEN 'attention'
					ELSE 'ok' END,
			   format('%s of %s; %s', pg_size_pretty(i.cache_bytes), current_setting('eros.cache_limit'),
					  coalesce(format('%s %% of %s reads hit', round(100.0 * h.hits / nullif(h.hits + h.misses, 0), 1), h.hits + h.misses), 'no reads')),
			   '80 % of the reads hit, at most 90 % of eros.cache_limit',
			   'read results with eros.get(); raise eros.cache_limit, or store less; a miss is a user whose result is not there yet'
		FROM i CROSS JOIN handler h
		UNION ALL
		SELECT 7, 1000, '10K', 'monitoring and alerts in place',
			   CASE WHEN m.scraped_at > eros.now() - interval '5 minutes' THEN 'ok' WHEN m.scraped_at IS NOT NULL THEN 'attention' ELSE 'to do' END,
			   CASE WHEN m.scraped_at IS NULL THEN 'never scraped since the start'
					ELSE format('scraped %s ago', date_trunc('second', eros.now() - m.scraped_at)) END,
			   'scraped within 5 minutes', 'set an exporter up, see Monitoring in docs/operations.md'
		FROM monitor m
		UNION ALL
		SELECT 8, 1000, '10K', 'failover tested',
			   CASE WHEN t.timeline_id > 1 THEN 'ok' ELSE 'to do' END, format('timeline %s', t.timeline_id),
			   'timeline above 1: a standby was promoted, or a backup restored', 'promote a standby, see Restart, crash, failover in docs/operations.md'
		FROM timeline t
		UNION ALL
		SELECT 9, 10000, '100K', 'partitioning or sharding',
			   CASE WHEN t.bytes > 10 * 2::bigint ^ 30 THEN 'attention' ELSE 'ok' END,
			   format('largest table of EROS: %s; eros.cache is partitioned by expiry', pg_size_pretty(t.bytes)),
			   'no table above 10 GB', 'lower eros.max_idle or the handlers'' ttl, store less, or spread the users over several databases or servers'
		FROM table_size t
		UNION ALL
		SELECT 10, 10000, '100K', 'read replicas',
			   CASE WHEN r.replicas > 0 THEN 'ok' ELSE 'to do' END, format('%s connected', r.replicas),
			   'at least one', 'set a streaming standby up; eros.get() works on it, eros_touch() on the primary'
		FROM replica r
		UNION ALL
		SELECT 11, 10000, '100K', 'metrics over time',
			   CASE WHEN s.covered_s >= 86400 AND m.scraped_at > eros.now() - interval '5 minutes' THEN 'ok' ELSE 'to do' END,
			   format('history of %s hours; %s', coalesce(round(s.covered_s / 3600), 0), CASE WHEN m.scraped_at IS NULL THEN 'no metrics collected'
						   WHEN m.scraped_at > eros.now() - interval '5 minutes' THEN 'metrics collected' ELSE 'metrics no longer collected' END),
			   'a day of history, and metrics collected now', 'let it run for a day; set an exporter up'
		FROM s CROSS JOIN monitor m
		UNION ALL
		SELECT 12, 100000, '1M', 'several servers',
			   CASE WHEN e.servers > 0 OR e.publications > 0 THEN 'ok' ELSE 'to do' END,
			   format('%s foreign servers, %s publications', e.servers, e.publications),
			   'a foreign server or a publication', 'spread the users over several servers'
		FROM elsewhere e
		UNION ALL
		SELECT 13, 100000, '1M', 'regions',
			   CASE WHEN r.places > 1 THEN 'ok' ELSE 'to do' END, format('replicas at %s addresses', r.places),
			   'replicas at two addresses', 'have a replica in each region from which users read'
		FROM replica r
	)
	SELECT l.item, l.level, l.topic,
		   CASE WHEN l.state = 'to do' AND l.needed_from > 0 AND coalesce(s.most_users, 0) < l.needed_from THEN 'does not apply' ELSE l.state END,
		   l.measured, l.threshold,
		   CASE WHEN l.state = 'ok' THEN '' ELSE l.advice END
	FROM list l CROSS JOIN s ORDER BY l.item
$$;
COMMENT ON FUNCTION eros.checklist() IS
	'the growth checklist, judged by what this server sees: level (the number of users by which it should be done), topic, state (ok, attention, to do, does not apply: not yet, with the users that were seen here), the measured figure, the threshold, what to do';

------------------------------------------------------------------------------
-- Health in words
------------------------------------------------------------------------------

-- by its slots, which the time tells: an index on sampled_at would make each sample's update write to it
CREATE VIEW eros.last_hour_sample AS
	SELECT r.sampled_at, r.server, r.phases, r.handlers
	FROM eros.history_ring r
	WHERE r.span_s = 60 AND r.sampled_at > eros.now() - interval '1 hour' AND r.sampled_at <= eros.now()
	  AND r.slot = ANY (ARRAY(
		SELECT ((floor(extract(epoch FROM eros.now()) / 60)::bigint - g) % 1440)::smallint FROM generate_series(0, 60) g));
COMMENT ON VIEW eros.last_hour_sample IS 'internal: the samples of the last hour, without reading the rest of the history';
COMMENT ON COLUMN eros.last_hour_sample.sampled_at IS 'end of the minute';
COMMENT ON COLUMN eros.last_hour_sample.server IS 'the database';
COMMENT ON COLUMN eros.last_hour_sample.phases IS 'the phases';
COMMENT ON COLUMN eros.last_hour_sample.handlers IS 'the handlers';

CREATE VIEW eros.last_hour AS
	SELECT coalesce(sum(p.granted), 0) AS cpu_granted_ms, coalesce(sum(p.used), 0) AS cpu_used_ms,
		   coalesce(sum(p.yielded), 0) AS cpu_yielded_ms,
		   coalesce(sum((r.server).evicted), 0)::bigint AS evicted,
		   coalesce(sum((r.server).halts), 0)::bigint AS halts,
		   coalesce(sum((r.server).halts_slow), 0)::bigint AS halts_slow,
		   coalesce(sum((r.server).halts_forced), 0)::bigint AS halts_forced,
		   coalesce(sum((r.server).touches_lost), 0)::bigint AS touches_lost,
		   coalesce(sum((r.server).users_spilled), 0)::bigint AS users_spilled
	FROM (SELECT l.server, l.phases FROM eros.last_hour_sample l
		  UNION ALL
		  SELECT s, '{}' FROM eros.sample_server((SELECT max(o.sampled_at) FROM eros.last_hour_sample o)) s) r
	CROSS JOIN LATERAL (
		SELECT sum(u.cpu_granted_ms) AS granted, sum(u.cpu_used_ms) AS used, sum(u.cpu_yielded_ms) AS yielded
		FROM unnest(r.phases) u) p;
COMMENT ON VIEW eros.last_hour IS 'internal: sums over the last hour of the history, and, but for CPU, what was counted since the last sample, for eros.problems()';
COMMENT ON COLUMN eros.last_hour.cpu_granted_ms IS 'CPU time granted, all phases, in ms';
COMMENT ON COLUMN eros.last_hour.cpu_used_ms IS 'CPU time used, in ms';
COMMENT ON COLUMN eros.last_hour.cpu_yielded_ms IS 'CPU time left to others, in ms';
COMMENT ON COLUMN eros.last_hour.evicted IS 'cache entries evicted';
COMMENT ON COLUMN eros.last_hour.halts IS 'batches halted';
COMMENT ON COLUMN eros.last_hour.halts_slow IS 'halts by returning users that took longer than 500 ms';
COMMENT ON COLUMN eros.last_hour.halts_forced IS 'workers terminated because they did not yield';
COMMENT ON COLUMN eros.last_hour.touches_lost IS 'touches that could not be noted';
COMMENT ON COLUMN eros.last_hour.users_spilled IS 'active users moved to the table to make room';

CREATE VIEW eros.last_hour_phase AS
	SELECT u.phase, sum(u.cpu_granted_ms) AS cpu_granted_ms, sum(u.cpu_used_ms) AS cpu_used_ms
	FROM eros.last_hour_sample r CROSS JOIN LATERAL unnest(r.phases) u
	GROUP BY u.phase;
COMMENT ON VIEW eros.last_hour_phase IS 'internal: sums over the last hour of the history for each phase, for eros.problems()';
COMMENT ON COLUMN eros.last_hour_phase.phase IS 'number of the phase';
COMMENT ON COLUMN eros.last_hour_phase.cpu_granted_ms IS 'CPU time granted, in ms';
COMMENT ON COLUMN eros.last_hour_phase.cpu_used_ms IS 'CPU time used, in ms';

CREATE VIEW eros.lately_handler AS
	SELECT n.name AS handler, sum(s.batches)::bigint AS batches, sum(s.batches_failed)::bigint AS batches_failed,
		   sum(s.users_done)::bigint AS users_done
	FROM (SELECT u.* FROM eros.last_hour_sample r CROSS JOIN LATERAL unnest(r.handlers) u
		  WHERE r.sampled_at > eros.now() - interval '15 minutes'
		  UNION ALL
		  SELECT * FROM eros.sample_handlers((SELECT max(o.sampled_at) FROM eros.last_hour_sample o))) s
	JOIN eros.handler n USING (handler_id)
	GROUP BY n.name;
COMMENT ON VIEW eros.lately_handler IS 'internal: sums over the last 15 minutes for each handler, for eros.problems()';
COMMENT ON COLUMN eros.lately_handler.handler IS 'its name';
COMMENT ON COLUMN eros.lately_handler.batches IS 'its calls';
COMMENT ON COLUMN eros.lately_handler.batches_failed IS 'calls for one user that raised an error or timed out; larger ones that do are split, and not counted';
COMMENT ON COLUMN eros.lately_handler.users_done IS 'jobs finished';

-- the hours, by their slots, the minutes since the last of them, likewise, and what is in no sample yet
CREATE VIEW eros.last_day_handler AS
	WITH hour AS MATERIALIZED (
		SELECT r.sampled_at, r.handlers
		FROM eros.history_ring r
		WHERE r.span_s = 3600 AND r.sampled_at > eros.now() - interval '1 day' AND r.sampled_at <= eros.now()
		  AND r.slot = ANY (ARRAY(
			SELECT ((floor(extract(epoch FROM eros.now()) / 3600)::bigint - g) % 720)::smallint FROM generate_series(0, 24) g))
	), since AS MATERIALIZED (
		SELECT coalesce(max(h.sampled_at), eros.now() - interval '1 day') AS at FROM hour h
	), minute AS MATERIALIZED (
		SELECT r.sampled_at, r.handlers
		FROM eros.history_ring r
		WHERE r.span_s = 60 AND r.sampled_at > (SELECT s.at FROM since s) AND r.sampled_at <= eros.now()
		  AND r.slot = ANY (ARRAY(
			SELECT ((floor(extract(epoch FROM eros.now()) / 60)::bigint - g) % 1440)::smallint
			FROM since s CROSS JOIN generate_series(0, least(1439, ceil(extract(epoch FROM eros.now() - s.at) / 60)::integer)) g))
	)
	SELECT n.name AS handler, sum(s.hits)::bigint AS hits, sum(s.misses)::bigint AS misses,
		   sum(s.results_expired)::bigint AS results_expired, sum(s.results_unread)::bigint AS results_unread
	FROM (SELECT u.* FROM hour h CROSS JOIN LATERAL unnest(h.handlers) u
		  UNION ALL
		  SELECT u.* FROM minute m CROSS JOIN LATERAL unnest(m.handlers) u
		  UNION ALL
		  SELECT * FROM eros.sample_handlers((SELECT max(o.sampled_at) FROM minute o))) s
	JOIN eros.handler n USING (handler_id)
	GROUP BY n.name;
COMMENT ON VIEW eros.last_day_handler IS 'internal: sums over the last day for each handler, for eros.problems()';
COMMENT ON COLUMN eros.last_day_handler.handler IS 'its name';
COMMENT ON COLUMN eros.last_day_handler.hits IS 'reads that found a result';
COMMENT ON COLUMN eros.last_day_handler.misses IS 'reads that found none';
COMMENT ON COLUMN eros.last_day_handler.results_expired IS 'results whose partition was dropped';
COMMENT ON COLUMN eros.last_day_handler.results_unread IS 'of these, results that nobody had read, estimated';

/*
 * One block for each condition, which gives a row while it is bad: rank within
 * its severity (10, 20, ...: room between), key, severity, what is wrong, what
 * to do.  The key names its section in docs/operations.md.  PL/pgSQL keeps the
 * plan for the next look, and planning is most of what one costs.
 */
CREATE FUNCTION eros.problems(
	OUT problem text, OUT severity text, OUT message text, OUT hint text, OUT anchor text) RETURNS SETOF record
	LANGUAGE plpgsql VOLATILE ROWS 5 SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
	WITH i AS MATERIALIZED (SELECT * FROM eros.database_info()),
	handler AS MATERIALIZED (SELECT * FROM eros.status_handler),
	queue AS MATERIALIZED (SELECT * FROM eros.status_queue),
	hour AS MATERIALIZED (SELECT * FROM eros.last_hour),
	hour_phase AS MATERIALIZED (SELECT * FROM eros.last_hour_phase),
	lately AS MATERIALIZED (SELECT * FROM eros.lately_handler),
	day AS MATERIALIZED (SELECT * FROM eros.last_day_handler),
	parked AS MATERIALIZED (
		SELECT e.extversion FROM pg_extension e WHERE e.extname = 'eros' AND e.extversion <> eros.library_version()),
	at_work AS MATERIALIZED (
		-- the scheduler, and since when it may have been
		SELECT greatest(i.last_sweep, i.scheduler_since) AS swept, greatest(i.last_maintenance, i.scheduler_since) AS maintained
		FROM i
		WHERE i.scheduler_pid IS NOT NULL AND current_setting('eros.enabled')::boolean AND NOT EXISTS (SELECT FROM parked)),
	meant_to_work AS MATERIALIZED (
		SELECT i.* FROM i
		WHERE NOT i.paused AND NOT i.held AND current_setting('eros.enabled')::boolean
			AND current_setting('eros.workers')::integer > 0 AND NOT pg_is_in_recovery()),
	failure AS MATERIALIZED (
		SELECT count(*) AS errors, sum(e.count) AS times, (array_agg(e.process || ': ' || e.message ORDER BY e.at DESC))[1] AS latest
		FROM eros.error_info() e
		WHERE e.own AND e.count >= 3 AND e.at BETWEEN eros.now() - interval '1 hour' AND eros.now()),
	bad (rank, problem, severity, message, hint) AS (
		SELECT 10, 'launcher_down', 'critical',
			   'the launcher does not run', 'see the server log'
		FROM i WHERE i.launcher_pid IS NULL AND current_setting('eros.enabled')::boolean AND NOT pg_is_in_recovery()
		UNION ALL
		-- waiting for no longer than a turn of another is no problem; that a further worker has no slot is a small one
		SELECT 20, 'no_worker_slot', CASE WHEN coalesce(i.waiting_since > clock_timestamp() - interval '5 minutes', true) THEN 'warning' ELSE 'critical' END,
			   'no free worker slot', 'raise max_worker_processes or lower eros.workers'
		FROM i WHERE i.no_worker_slot OR i.waiting_since < clock_timestamp() - current_setting('eros.turn')::interval
		UNION ALL
		SELECT 30, 'scheduler_down', 'critical',
			   'the scheduler of this database is not running', 'it is started within seconds'
		FROM i WHERE i.scheduler_pid IS NULL AND i.launcher_pid IS NOT NULL AND NOT i.held
			AND NOT i.no_worker_slot AND i.waiting_since IS NULL AND NOT i.away AND i.known AND i.failed_starts <= 1
		UNION ALL
		SELECT 28, 'scheduler_does_not_start', 'critical',
			   format('the scheduler of this database has failed to start %s times', i.failed_starts), 'see the server log'
		FROM i WHERE i.scheduler_pid IS NULL AND i.launcher_pid IS NOT NULL AND NOT i.held AND i.failed_starts > 1
		UNION ALL
		SELECT 15, 'no_room', 'critical',
			   'there is no room for this database, or it was not looked at yet', 'raise eros.max_databases'
		FROM i WHERE NOT i.known AND i.launcher_pid IS NOT NULL
		UNION ALL
		SELECT 25, 'scheduler_fails', 'critical',
			   format('the scheduler of this database fails (SQLSTATE %s)', i.sqlstate), 'see the server log'
		FROM i WHERE i.failed_rounds > 0
		UNION ALL
		SELECT 50, 'touches_lost', 'critical',
			   format('%s touches were lost in the last hour where nothing can be written', r.touches_lost), 'raise eros.tracker_memory'
		FROM hour r WHERE r.touches_lost > 0
		UNION ALL
		SELECT 60, 'handlers_broken', 'critical',
			   format('%s handlers cannot be called', count(*)), 'see error in eros.status_handler'
		FROM handler h WHERE h.error IS NOT NULL HAVING count(*) > 0
		UNION ALL
		SELECT 4, 'parked', 'critical',
			   format('parked: the library has version %s, the extension %s', eros.library_version(), e.extversion),
			   'restart the server if the library was replaced, then ALTER EXTENSION eros UPDATE'
		FROM parked e
		UNION ALL
		SELECT 5, 'switched_off', 'critical', 'switched off', 'set eros.enabled = on, and reload the configuration'
		WHERE NOT current_setting('eros.enabled')::boolean
		UNION ALL
		SELECT 5, 'no_workers', 'warning', 'no handler is called', 'set eros.workers to 1 or more, and reload the configuration'
		WHERE current_setting('eros.workers')::integer = 0
		UNION ALL
		SELECT 6, 'paused', 'warning', 'paused', 'eros.resume() lets the work go on'
		FROM i WHERE i.paused
		UNION ALL
		SELECT 7, 'held', 'warning', 'kept out while a command works on this database or on the extension',
			   'EROS comes back when its transaction has ended'
		FROM i WHERE i.held
		UNION ALL
		SELECT 40, 'users_spilled', 'warning',
			   format('%s active users did not fit into memory in the last hour and were moved to the table', r.users_spilled), 'raise eros.tracker_memory'
		FROM hour r WHERE r.users_spilled > 0
		UNION ALL
		SELECT 50, 'jobs_failed', 'warning',
			   format('%s jobs have failed', sum(h.jobs_failed)), 'see last_error in eros.job, then eros.retry()'
		FROM handler h HAVING sum(h.jobs_failed) > 0
		UNION ALL
		SELECT 35, 'sweep_late', 'critical',
			   format('no sweep since %s', date_trunc('second', w.swept)), 'see the server log for what the scheduler cannot do'
		FROM at_work w
		WHERE w.swept < eros.now() - interval '10 minutes'
				- least(coalesce((SELECT min(p.idle_after) FROM eros.phase p), '1 minute'), interval '1 hour')
		UNION ALL
		SELECT 60, 'tracker_filling', 'warning',
			   format('the memory for active users is %s %% full', round(100.0 * i.tracker_users / i.tracker_capacity)),
			   'raise eros.tracker_memory'
		FROM i CROSS JOIN hour r WHERE i.tracker_users > 0.75 * i.tracker_capacity AND r.users_spilled = 0
		UNION ALL
		SELECT 70, 'halts_forced', 'warning',
			   format('%s workers were terminated in the last hour because they did not yield to a halt', r.halts_forced),
			   'see the server log for the handler'
		FROM hour r WHERE r.halts_forced > 0
		UNION ALL
		SELECT 80, 'halts_slow', 'warning',
			   format('%s of %s halts in the last hour took longer than 500 ms', r.halts_slow, r.halts),
			   'lower the work_mem of the handlers'' functions'
		-- only returns can be slow: those since the start are another bound of how many there were
		FROM hour r WHERE r.halts_slow > 0.01 * least(r.halts, (SELECT h.halts FROM eros.halt_info() h))
		UNION ALL
		SELECT 90, 'cpu_over_share', 'warning',
			   format('phase %s has used %s s of CPU in the last hour, and was granted %s s',
					  r.phase, round(r.cpu_used_ms::numeric / 1000), round(r.cpu_granted_ms::numeric / 1000)),
			   'a handler computes without checking for interrupts: see cpu_used_ms in eros.history_handler'
		FROM hour_phase r WHERE r.cpu_used_ms > 1.1 * r.cpu_granted_ms + 5000
		UNION ALL
		SELECT 100, 'queue_late', 'warning',
			   format('jobs of handler "%s" have waited for %s', q.handler, date_trunc('minute', q.oldest_wait)),
			   'raise the phase''s cpu_percent or eros.workers, or move the handler to a later phase'
		FROM queue q JOIN handler h USING (handler) CROSS JOIN meant_to_work
		WHERE h.enabled AND q.oldest_wait > interval '1 hour'
			AND q.oldest_wait = (SELECT max(o.oldest_wait) FROM queue o JOIN handler e USING (handler) WHERE e.enabled)
		UNION ALL
		SELECT 110, 'call_long', 'warning',
			   format('a call of handler "%s" has taken %s', w.handler, date_trunc('second', w.batch_age)),
			   'it holds a snapshot, which keeps vacuum back: lower the handler''s timeout'
		FROM eros.status_worker w
		WHERE w.batch_age > current_setting('eros.max_snapshot_age')::interval / 2 AND w.worker = (
			SELECT o.worker FROM eros.status_worker o WHERE o.batch_age IS NOT NULL ORDER BY o.batch_age DESC LIMIT 1)
		UNION ALL
		SELECT 120, 'maintenance_late', 'warning',
			   format('no maintenance since %s', date_trunc('second', w.maintained)),
			   'see the server log, and pg_cron''s job log if maintenance_by is pg_cron'
		FROM at_work w
		WHERE w.maintained < eros.now() - interval '10 minutes'
				- 4 * current_setting('eros.maintenance_interval')::interval
		UNION ALL
		SELECT 130, 'cache_full', 'warning',
			   format('%s results were evicted in the last hour', r.evicted), 'raise eros.cache_limit, or store less'
		FROM hour r WHERE r.evicted > 0
		UNION ALL
		SELECT 140, 'contended', 'warning',
			   format('in the last hour EROS left %s s of CPU to others and was granted %s s',
					  round(r.cpu_yielded_ms::numeric / 1000), round(r.cpu_granted_ms::numeric / 1000)),
			   'the machine has next to nothing to spare: give it more CPU, or switch eros.foreground_first off'
		FROM hour r WHERE r.cpu_yielded_ms > 60000 AND r.cpu_yielded_ms > 4 * r.cpu_granted_ms
		UNION ALL
		SELECT 150, 'dead_jobs', 'warning',
			   format('%s dead rows of eros.job are kept', t.n_dead_tup),
			   'end the oldest transaction in pg_stat_activity, and see whether autovacuum runs'
		FROM pg_stat_user_tables t
		WHERE t.relid = to_regclass('eros.job') AND t.n_dead_tup > 100000 AND t.n_dead_tup > 10 * t.n_live_tup
		UNION ALL
		SELECT 160, 'statements_slow', 'warning',
			   format('EROS''s own %s takes up to %s ms', string_agg(l.operation, ', '), round(max(l.p99_ms)::numeric)),
			   'see eros.status_latency'
		FROM eros.status_latency l
		JOIN (VALUES ('claim', 500), ('store', 5000), ('get', 50), ('sweep', 10000)) t (operation, limit_ms) USING (operation)
		WHERE l.measured >= 100 AND l.p99_ms > t.limit_ms HAVING count(*) > 0
		UNION ALL
		SELECT 170, 'results_unread', 'warning',
			   format('nobody reads %s %% of the results of handler "%s"', round(100.0 * d.results_unread / d.results_expired), d.handler),
			   'see suggestion in eros.status_worth'
		FROM day d JOIN handler h USING (handler)
		WHERE h.enabled AND d.results_expired >= 1000 AND d.results_unread >= 0.9 * d.results_expired
		UNION ALL
		SELECT 180, 'hits_rare', 'warning',
			   format('%s %% of the reads of handler "%s" find no result', round(100.0 * d.misses / (d.hits + d.misses)), d.handler),
			   'see whether its jobs wait or fail, whether its ttl is long enough, and whether it is read under the right users'
		FROM day d JOIN handler h USING (handler) CROSS JOIN i
		WHERE h.enabled AND d.hits + d.misses >= 1000 AND d.misses > d.hits AND i.stats_since < eros.now() - interval '1 day'
		UNION ALL
		SELECT 190, 'scrape_stopped', 'warning',
			   format('the metrics were last collected at %s', date_trunc('second', m.scraped_at)), 'see whether the exporter runs'
		FROM eros.monitor_info() m
		WHERE m.scrapes >= 5 AND m.scraped_at >= m.scraping_since + interval '30 minutes'
			AND m.scraped_at BETWEEN eros.now() - interval '1 day' AND eros.now() - interval '15 minutes'
		UNION ALL
		SELECT 55, 'handler_failing', 'warning',
			   format('in the last 15 minutes handler "%s" failed %s times for a user, and was done for %s', l.handler, l.batches_failed, l.users_done),
			   'see its message in eros.status_error'
		FROM lately l JOIN handler h USING (handler)
		WHERE h.enabled AND h.jobs_pending > 0 AND l.batches_failed > 0.1 * (l.users_done + l.batches_failed) AND l.batches_failed >= 3
		UNION ALL
		SELECT 56, 'handler_suspended', 'warning',
			   format('workers have ended in calls of handler "%s": it is suspended until %s', h.handler, date_trunc('second', h.suspended_until)),
			   'see the server log for how they ended, and mend the handler'
		FROM handler h WHERE h.enabled AND h.jobs_pending > 0 AND h.suspended_until > clock_timestamp()
		UNION ALL
		SELECT 57, 'queue_stalled', 'warning',
			   format('jobs of handler "%s" have waited for %s, and none was done in the last 15 minutes', q.handler, date_trunc('minute', q.oldest_wait)),
			   'see what the workers do in eros.status_worker, and the errors in eros.status_error'
		FROM queue q JOIN handler h USING (handler) LEFT JOIN lately l USING (handler) CROSS JOIN meant_to_work i
		WHERE h.enabled AND h.counted AND h.error IS NULL AND q.oldest_wait > interval '15 minutes' AND coalesce(l.users_done, 0) = 0
			AND i.served_since < eros.now() - interval '15 minutes'
		UNION ALL
		SELECT 125, 'purge_blocked', 'warning',
			   format('%s partitions of the cache have been kept for more than an hour after their results expired', count(*)),
			   'end the transactions that read eros.cache: see pg_stat_activity and pg_locks'
		FROM eros.cache_partitions() c CROSS JOIN i
		WHERE i.scheduler_pid IS NOT NULL AND c.upper < eros.now() - interval '1 hour'
			AND i.last_maintenance > c.upper + interval '10 minutes'
		HAVING count(*) > 0
		UNION ALL
		SELECT 135, 'handlers_uncounted', 'warning',
			   format('there is no room for the figures of %s handlers', count(*)), 'raise eros.max_handlers, and restart the server'
		FROM eros.handler_info() h WHERE NOT h.counted HAVING count(*) > 0
		UNION ALL
		SELECT 137, 'database_left', 'warning',
			   format('DROP DATABASE of %s was interrupted', string_agg(quote_ident(d.datname), ', ' ORDER BY d.datname)), 'repeat it'
		FROM pg_database d WHERE d.datconnlimit = -2 HAVING count(*) > 0
		UNION ALL
		SELECT 138, 'errors', 'warning',
			   format('%s errors of EROS''s processes came %s times, the last within an hour, "%s"', f.errors, f.times, f.latest),
			   'see eros.status_error and the server log'
		FROM failure f WHERE f.errors > 0
	)
	SELECT b.problem, b.severity, b.message, b.hint,
		   'docs/operations.md#' || replace(b.problem, '_', '-')
	FROM bad b
	ORDER BY b.severity, b.rank, b.message;
END
$$;
COMMENT ON FUNCTION eros.problems() IS
	'what is wrong in this database now, the worst first: a stable key, critical or warning, the sentence, what to do, and where it is explained. No row: all is well';

------------------------------------------------------------------------------
-- All of it in one row
------------------------------------------------------------------------------

CREATE VIEW eros.status AS
	-- looked for once, and only by who asks for one of these columns
	WITH found AS MATERIALIZED (
		SELECT (array_agg(b.message || ': ' || b.hint ORDER BY b.ordinality))[1] AS status,
			   (array_agg(b.anchor ORDER BY b.ordinality))[1] AS anchor,
			   count(*)::integer AS problems
		FROM eros.problems() WITH ORDINALITY b
	)
	SELECT coalesce((SELECT f.status FROM found f), 'ok') AS status,
		   (SELECT f.anchor FROM found f) AS anchor,
		   (SELECT f.problems FROM found f) AS problems,
		   i.active_users,
		   p.idle_users,
		   q.jobs_pending, q.jobs_failed,
		   i.workers,
		   current_setting('eros.workers')::integer AS workers_limit,
		   i.cache_bytes,
		   pg_size_bytes(current_setting('eros.cache_limit')) AS cache_limit_bytes,
		   CASE WHEN i.by_pg_cron THEN 'pg_cron' ELSE 'scheduler' END AS maintenance_by,
		   i.last_maintenance, i.last_sweep,
		   i.tracker_users, i.tracker_capacity, i.tracker_bytes, i.tracker_limit_bytes,
		   i.touches_spilled, i.touches_lost, i.users_spilled,
		   i.returns, i.halts, i.gave_way, i.evicted,
		   p.cpu_used_ms, i.scheduler_cpu_ms,
		   i.launcher_pid, i.scheduler_pid,
		   i.clock_offset, i.stats_since
	FROM eros.database_info() i
	CROSS JOIN (SELECT sum(users)::bigint AS idle_users, sum(cpu_used_ms) AS cpu_used_ms FROM eros.status_phase) p
	CROSS JOIN (SELECT coalesce(sum(pending), 0)::bigint AS jobs_pending,
					   coalesce(sum(failed), 0)::bigint AS jobs_failed
				FROM eros.handler_info()) q;
COMMENT ON VIEW eros.status IS 'one row: is all well in this database, and the figures at a glance, since the server''s start';
COMMENT ON COLUMN eros.status.status IS '''ok'', or what is wrong and what to do';
COMMENT ON COLUMN eros.status.anchor IS 'where that is explained in the documentation; NULL: all is well';
COMMENT ON COLUMN eros.status.problems IS 'how many rows eros.problems() has: status is the first of them';
COMMENT ON COLUMN eros.status.active_users IS 'users of this database in shared memory';
COMMENT ON COLUMN eros.status.idle_users IS 'users in eros.activity, all phases';
COMMENT ON COLUMN eros.status.jobs_pending IS 'jobs to be run';
COMMENT ON COLUMN eros.status.jobs_failed IS 'jobs out of attempts';
COMMENT ON COLUMN eros.status.workers IS 'workers that run now';
COMMENT ON COLUMN eros.status.workers_limit IS 'setting eros.workers';
COMMENT ON COLUMN eros.status.cache_bytes IS 'bytes of live results';
COMMENT ON COLUMN eros.status.cache_limit_bytes IS 'setting eros.cache_limit, in bytes; 0: none';
COMMENT ON COLUMN eros.status.maintenance_by IS 'who purges and cleans up: pg_cron or scheduler';
COMMENT ON COLUMN eros.status.last_maintenance IS 'when that was done last';
COMMENT ON COLUMN eros.status.last_sweep IS 'when the scheduler last looked for idle users';
COMMENT ON COLUMN eros.status.tracker_users IS 'users in shared memory, all databases';
COMMENT ON COLUMN eros.status.tracker_capacity IS 'users that the shared memory can hold';
COMMENT ON COLUMN eros.status.tracker_bytes IS 'shared memory in use for them, in bytes';
COMMENT ON COLUMN eros.status.tracker_limit_bytes IS 'shared memory reserved for them, in bytes';
COMMENT ON COLUMN eros.status.touches_spilled IS 'touches that went to the table since the memory was full';
COMMENT ON COLUMN eros.status.touches_lost IS 'touches that could not, in a read-only transaction or in a parallel query';
COMMENT ON COLUMN eros.status.users_spilled IS 'active users moved to the table to make room';
COMMENT ON COLUMN eros.status.returns IS 'idle or new users who became active';
COMMENT ON COLUMN eros.status.halts IS 'batches interrupted by a returning user, somebody who waited for a lock, or eros.pause()';
COMMENT ON COLUMN eros.status.gave_way IS 'of these, for somebody who waited for a lock';
COMMENT ON COLUMN eros.status.evicted IS 'cache entries evicted at eros.cache_limit';
COMMENT ON COLUMN eros.status.cpu_used_ms IS 'CPU time of all batches, in ms';
COMMENT ON COLUMN eros.status.scheduler_cpu_ms IS 'CPU time of the scheduler, in ms';
COMMENT ON COLUMN eros.status.launcher_pid IS 'process of the launcher';
COMMENT ON COLUMN eros.status.scheduler_pid IS 'process of this database''s scheduler';
COMMENT ON COLUMN eros.status.clock_offset IS 'by how much a developer has moved the time of EROS';
COMMENT ON COLUMN eros.status.stats_since IS 'when the counters began: the server''s start';

------------------------------------------------------------------------------
-- Metrics
------------------------------------------------------------------------------

/*
 * The names, by Prometheus's conventions.  What one query of an exporter yields
 * is a subject: its metrics have the same labels, and the same prefix.
 */
CREATE VIEW eros.metric_family AS
	SELECT f.subject, f.name, f.type, f.labels, f.help
	FROM (VALUES
		('build', 'eros_build_info', 'gauge', '{version,server_version}'::text[],
		 'Always 1; the versions of EROS and of PostgreSQL'),

		('server', 'eros_server_launcher_up', 'gauge', '{}', '1 while the launcher runs'),
		('server', 'eros_server_in_recovery', 'gauge', '{}', '1 on a standby, where no process of EROS runs'),
		('server', 'eros_server_enabled', 'gauge', '{}', 'Setting eros.enabled: 1 or 0'),
		('server', 'eros_server_cpu_cores', 'gauge', '{}', 'Cores of which the hard cap is a part'),
		('server', 'eros_server_cpu_cap_ratio', 'gauge', '{}', 'Setting eros.cpu_cap: the part of all cores that EROS may use'),
		('server', 'eros_server_start_time_seconds', 'gauge', '{}', 'When the counters began, in seconds since 1970'),

		('tracker', 'eros_tracker_users', 'gauge', '{}', 'Active users in shared memory, all databases'),
		('tracker', 'eros_tracker_capacity_users', 'gauge', '{}', 'Active users that the shared memory can hold'),
		('tracker', 'eros_tracker_used_bytes', 'gauge', '{}', 'Shared memory in use for active users'),
		('tracker', 'eros_tracker_reserved_bytes', 'gauge', '{}', 'Shared memory reserved for active users'),

		('database', 'eros_database_healthy', 'gauge', '{}', '1 while eros.status says ok'),
		('database', 'eros_database_scheduler_up', 'gauge', '{}', '1 while the scheduler of the database runs, or is not needed'),
		('database', 'eros_database_paused', 'gauge', '{}', '1 between eros.pause() and eros.resume()'),
		('database', 'eros_database_worker_slot_missing', 'gauge', '{}', '1 while max_worker_processes leaves no slot'),
		('database', 'eros_database_active_users', 'gauge', '{}', 'Active users of the database in shared memory'),
		('database', 'eros_database_idle_users', 'gauge', '{}', 'Idle users, all phases'),
		('database', 'eros_database_returns_total', 'counter', '{}', 'Idle or new users who became active'),
		('database', 'eros_database_touches_spilled_total', 'counter', '{}', 'Touches that went to the table since the shared memory was full'),
		('database', 'eros_database_touches_lost_total', 'counter', '{}', 'Touches that could not even go to the table'),
		('database', 'eros_database_users_spilled_total', 'counter', '{}', 'Active users moved to the table to make room'),
		('database', 'eros_database_workers_limit', 'gauge', '{}', 'Setting eros.workers'),
		('database', 'eros_database_scheduler_cpu_seconds_total', 'counter', '{}', 'CPU time of the scheduler'),
		('database', 'eros_database_last_sweep_timestamp_seconds', 'gauge', '{}', 'When the scheduler last looked for idle users, in seconds since 1970; 0: never'),
		('database', 'eros_database_last_maintenance_timestamp_seconds', 'gauge', '{}', 'When the cache was last purged and cleaned up, in seconds since 1970; 0: never'),
		('database', 'eros_database_maintenance_interval_seconds', 'gauge', '{}', 'Setting eros.maintenance_interval'),

		('phase', 'eros_phase_share_ratio', 'gauge', '{phase}', 'Part of a core that each worker may use'),
		('phase', 'eros_phase_idle_after_seconds', 'gauge', '{phase}', 'Idle time after which the phase begins'),
		('phase', 'eros_phase_batch_limit_users', 'gauge', '{phase}', 'Users in a batch, at most'),
		('phase', 'eros_phase_users', 'gauge', '{phase}', 'Idle users in the phase'),
		('phase', 'eros_phase_transitions_total', 'counter', '{phase}', 'Crossings into the phase'),
		('phase', 'eros_phase_batches_total', 'counter', '{phase}', 'Calls of handlers'),
		('phase', 'eros_phase_jobs_done_total', 'counter', '{phase}', 'Jobs finished'),
		('phase', 'eros_phase_cpu_granted_seconds_total', 'counter', '{phase}', 'CPU time granted while there was work'),
		('phase', 'eros_phase_cpu_used_seconds_total', 'counter', '{phase}', 'CPU time used by batches'),
		('phase', 'eros_phase_cpu_yielded_seconds_total', 'counter', '{phase}', 'CPU time of the share left to others because the machine was contended'),
		('phase', 'eros_phase_throttled_seconds_total', 'counter', '{phase}', 'Time that workers waited although jobs were due'),

		('handler', 'eros_handler_enabled', 'gauge', '{handler,phase}', '1 while jobs are created and run'),
		('handler', 'eros_handler_broken', 'gauge', '{handler,phase}', '1 while the handler cannot be called at all'),
		('handler', 'eros_handler_jobs_pending', 'gauge', '{handler,phase}', 'Jobs to be run'),
		('handler', 'eros_handler_jobs_failed', 'gauge', '{handler,phase}', 'Jobs out of attempts'),
		('handler', 'eros_handler_oldest_wait_seconds', 'gauge', '{handler,phase}', 'How long the first of its jobs has been due; 0: none is'),
		('handler', 'eros_handler_batches_total', 'counter', '{handler,phase}', 'Calls'),
		('handler', 'eros_handler_batches_failed_total', 'counter', '{handler,phase}', 'Calls for one user that raised an error or timed out; larger ones that do are split, and not counted'),
		('handler', 'eros_handler_batches_halted_total', 'counter', '{handler,phase}', 'Calls that were halted'),
		('handler', 'eros_handler_jobs_done_total', 'counter', '{handler,phase}', 'Jobs finished'),
		('handler', 'eros_handler_cpu_seconds_total', 'counter', '{handler,phase}', 'CPU time of its batches'),
		('handler', 'eros_handler_cpu_halted_seconds_total', 'counter', '{handler,phase}', 'Part of it that was lost to halts'),
		('handler', 'eros_handler_cost_seconds', 'gauge', '{handler,phase}', 'CPU time per user, moving average; absent: never measured'),
		('handler', 'eros_handler_ttl_seconds', 'gauge', '{handler,phase}', 'Lifetime of its results'),
		('handler', 'eros_handler_results_stored_total', 'counter', '{handler,phase}', 'Results stored'),
		('handler', 'eros_handler_hits_total', 'counter', '{handler,phase}', 'Reads that found a result'),
		('handler', 'eros_handler_misses_total', 'counter', '{handler,phase}', 'Reads that found none'),
		('handler', 'eros_handler_results_expired_total', 'counter', '{handler,phase}', 'Results whose partition has been dropped'),
		('handler', 'eros_handler_results_unread_total', 'counter', '{handler,phase}', 'Of these, results that nobody had read, estimated'),

		('workers', 'eros_workers_running', 'gauge', '{activity}', 'Workers by what they do'),

		('worker', 'eros_worker_batch_users', 'gauge', '{worker}', 'Users in its batch; 0: between batches'),
		('worker', 'eros_worker_batch_age_seconds', 'gauge', '{worker}', 'Time since it called the handler, which is the age of its snapshot; 0: between batches'),
		('worker', 'eros_worker_grant_ratio', 'gauge', '{worker}', 'Part of the shares that it takes, less than 1 while the machine is contended'),
		('worker', 'eros_worker_waited_ratio', 'gauge', '{worker}', 'Part of its running time for which it last had to wait for a CPU'),
		('worker', 'eros_worker_cpu_seconds_total', 'counter', '{worker}', 'CPU time since it was started'),
		('worker', 'eros_worker_batches_total', 'counter', '{worker}', 'Batches since it was started'),
		('worker', 'eros_worker_jobs_done_total', 'counter', '{worker}', 'Jobs finished since it was started'),

		('cache', 'eros_cache_live_bytes', 'gauge', '{}', 'Live results'),
		('cache', 'eros_cache_limit_bytes', 'gauge', '{}', 'Setting eros.cache_limit; 0: none'),
		('cache', 'eros_cache_disk_bytes', 'gauge', '{}', 'The cache on disk, with indexes and dead rows'),
		('cache', 'eros_cache_partitions', 'gauge', '{}', 'Partitions of the cache'),
		('cache', 'eros_cache_evicted_total', 'counter', '{}', 'Entries evicted at eros.cache_limit'),

		('halts', 'eros_halts_total', 'counter', '{reason}', 'Batches interrupted, by why: return, waiter (somebody waited for a lock) or pause'),

		('halt', 'eros_halt_latency_seconds', 'histogram', '{}', 'Time from the touch of a returning user to the roll-back finished'),
		('halt', 'eros_halt_forced_total', 'counter', '{}', 'Workers terminated because they did not yield within eros.halt_timeout'),

		('operation', 'eros_operation_calls_total', 'counter', '{operation}', 'Statements of EROS''s own that were measured'),
		('operation', 'eros_operation_seconds_total', 'counter', '{operation}', 'Time that they took'),
		('operation', 'eros_operation_slowest_seconds', 'gauge', '{operation}', 'The longest of them'),

		('problem', 'eros_problem_rows', 'gauge', '{problem,severity}', 'Rows of eros.problems(), some problems having one for each handler; absent: none'),

		('prediction_users', 'eros_prediction_users_predicted', 'gauge', '{quantity,phase,handler}', 'Users, by the formulas'),
		('prediction_users', 'eros_prediction_users_measured', 'gauge', '{quantity,phase,handler}', 'Users that there were'),
		('prediction_jobs', 'eros_prediction_jobs_predicted', 'gauge', '{quantity,phase,handler}', 'Jobs, by the formulas'),
		('prediction_jobs', 'eros_prediction_jobs_measured', 'gauge', '{quantity,phase,handler}', 'Jobs that there were'),
		('prediction_time', 'eros_prediction_time_predicted_seconds', 'gauge', '{quantity,phase,handler}', 'Times, by the formulas'),
		('prediction_time', 'eros_prediction_time_measured_seconds', 'gauge', '{quantity,phase,handler}', 'Times that were measured'),
		('prediction_size', 'eros_prediction_size_predicted_bytes', 'gauge', '{quantity,phase,handler}', 'Sizes, by the formulas'),
		('prediction_size', 'eros_prediction_size_measured_bytes', 'gauge', '{quantity,phase,handler}', 'Sizes that were measured')
	) f(subject, name, type, labels, help);
COMMENT ON VIEW eros.metric_family IS 'the names of eros.metrics: what there is to be measured';
COMMENT ON COLUMN eros.metric_family.subject IS 'what it is about; all metrics of a subject have the same labels';
COMMENT ON COLUMN eros.metric_family.name IS 'its name in Prometheus, with the unit: seconds, bytes, ratio (0 to 1) or what is counted; eros_server_ and eros_tracker_ are of the whole server';
COMMENT ON COLUMN eros.metric_family.type IS 'counter (ends with _total, begins with zero at the server''s start, a worker''s at its own), gauge or histogram';
COMMENT ON COLUMN eros.metric_family.labels IS 'the names of its labels; datname, the database, is always there besides';
COMMENT ON COLUMN eros.metric_family.help IS 'what it is';

CREATE VIEW eros.metrics AS
	-- materialized, so that each is asked once
	WITH prediction AS MATERIALIZED (
		SELECT p.unit, v.source, v.value,
			   jsonb_build_object('quantity', p.quantity, 'phase', coalesce(p.phase::text, ''),
								  'handler', coalesce(p.handler, '')) AS labels
		FROM eros.status_prediction p CROSS JOIN LATERAL (VALUES
			('predicted', p.predicted), ('measured', p.measured)) v(source, value)
	), problem AS MATERIALIZED (
		SELECT * FROM eros.problems()
	)
	SELECT f.subject, f.name AS family, f.name || s.suffix AS name, f.type, f.help,
		   jsonb_build_object('datname', current_database()) || s.labels AS labels,
		   s.value
	FROM (
		SELECT 'build' AS subject, 'eros_build_info' AS family, '' AS suffix,
			   jsonb_build_object('version', e.extversion, 'server_version', split_part(current_setting('server_version'), ' ', 1)) AS labels,
			   1::double precision AS value
		FROM pg_extension e WHERE e.extname = 'eros'
	UNION ALL
		SELECT 'server', 'eros_server_' || v.name, '', '{}', v.value
		FROM eros.database_info() i CROSS JOIN LATERAL (VALUES
			('launcher_up', (i.launcher_pid IS NOT NULL)::integer),
			('in_recovery', pg_is_in_recovery()::integer),
			('enabled', current_setting('eros.enabled')::boolean::integer),
			('cpu_cores', eros.cpu_cores()),
			('cpu_cap_ratio', current_setting('eros.cpu_cap')::double precision / 100),
			('start_time_seconds', extract(epoch FROM i.stats_since)::double precision)) v(name, value)
	UNION ALL
		SELECT 'tracker', 'eros_tracker_' || v.name, '', '{}', v.value
		FROM eros.database_info() i CROSS JOIN LATERAL (VALUES
			('users', i.tracker_users), ('capacity_users', i.tracker_capacity),
			('used_bytes', i.tracker_bytes), ('reserved_bytes', i.tracker_limit_bytes)) v(name, value)
	UNION ALL
		SELECT 'database', 'eros_database_' || v.name, '', '{}', v.value
		FROM eros.database_info() i
		CROSS JOIN eros.note_scrape()
		CROSS JOIN (SELECT sum(p.users) AS idle_users FROM eros.status_phase p) s
		CROSS JOIN LATERAL (VALUES
			('healthy', (NOT EXISTS (SELECT FROM problem))::integer),
			('scheduler_up', (i.scheduler_pid IS NOT NULL OR i.away)::integer),
			('paused', i.paused::integer),
			('worker_slot_missing', i.no_worker_slot::integer),
			('active_users', i.active_users),
			('idle_users', s.idle_users),
			('returns_total', i.returns),
			('touches_spilled_total', i.touches_spilled),
			('touches_lost_total', i.touches_lost),
			('users_spilled_total', i.users_spilled),
			('workers_limit', current_setting('eros.workers')::integer),
			('scheduler_cpu_seconds_total', i.scheduler_cpu_ms / 1000),
			('last_sweep_timestamp_seconds',
			 coalesce(extract(epoch FROM i.last_sweep - i.clock_offset), 0)::double precision),
			('last_maintenance_timestamp_seconds',
			 coalesce(extract(epoch FROM i.last_maintenance - i.clock_offset), 0)::double precision),
			('maintenance_interval_seconds',
			 extract(epoch FROM current_setting('eros.maintenance_interval')::interval)::double precision)) v(name, value)
	UNION ALL
		SELECT 'phase', 'eros_phase_' || v.name, '', jsonb_build_object('phase', p.phase::text), v.value
		FROM eros.status_phase p CROSS JOIN LATERAL (VALUES
			('share_ratio', p.cpu_percent / 100),
			('idle_after_seconds', extract(epoch FROM p.idle_after)::double precision),
			('batch_limit_users', p.batch_size),
			('users', p.users),
			('transitions_total', p.transitions),
			('batches_total', p.batches),
			('jobs_done_total', p.users_done),
			('cpu_granted_seconds_total', p.cpu_granted_ms / 1000),
			('cpu_used_seconds_total', p.cpu_used_ms / 1000),
			('cpu_yielded_seconds_total', p.cpu_yielded_ms / 1000),
			('throttled_seconds_total', p.throttled_ms / 1000)) v(name, value)
	UNION ALL
		SELECT 'handler', 'eros_handler_' || v.name, '', jsonb_build_object('handler', h.handler, 'phase', h.phase::text), v.value
		FROM eros.status_handler h JOIN eros.status_queue q USING (handler) CROSS JOIN LATERAL (VALUES
			('enabled', h.enabled::integer),
			('broken', (h.error IS NOT NULL)::integer),
			('jobs_pending', h.jobs_pending),
			('jobs_failed', h.jobs_failed),
			('oldest_wait_seconds', coalesce(extract(epoch FROM q.oldest_wait), 0)::double precision),
			('batches_total', h.batches),
			('batches_failed_total', h.batches_failed),
			('batches_halted_total', h.batches_halted),
			('jobs_done_total', h.users_done),
			('cpu_seconds_total', h.cpu_used_ms / 1000),
			('cpu_halted_seconds_total', h.cpu_halted_ms / 1000),
			('cost_seconds', h.cost_ms / 1000),
			('ttl_seconds', extract(epoch FROM h.ttl)::double precision),
			('results_stored_total', h.results_stored),
			('hits_total', h.hits),
			('misses_total', h.misses),
			('results_expired_total', h.results_expired),
			('results_unread_total', h.results_unread)) v(name, value)
		-- no counters of zero that are not counted
		WHERE h.counted OR v.name IN ('enabled', 'broken', 'oldest_wait_seconds', 'ttl_seconds')
	UNION ALL
		SELECT 'workers', 'eros_workers_running', '', jsonb_build_object('activity', a.activity), count(w.pid)
		FROM unnest('{starting,idle,claiming,computing,storing,pausing,pausing in call}'::text[]) a(activity)
		LEFT JOIN eros.worker_info() w USING (activity)
		GROUP BY a.activity
	UNION ALL
		SELECT 'worker', 'eros_worker_' || v.name, '', jsonb_build_object('worker', w.worker::text), v.value
		FROM eros.status_worker w CROSS JOIN LATERAL (VALUES
			('batch_users', coalesce(w.batch_users, 0)),
			('batch_age_seconds', coalesce(extract(epoch FROM w.batch_age), 0)::double precision),
			('grant_ratio', w.grant_percent / 100),
			('waited_ratio', w.waited_percent / 100),
			('cpu_seconds_total', w.cpu_used_ms / 1000),
			('batches_total', w.batches),
			('jobs_done_total', w.users_done)) v(name, value)
	UNION ALL
		SELECT 'cache', 'eros_cache_' || v.name, '', '{}', v.value
		FROM eros.database_info() i
		CROSS JOIN (SELECT sum(c.size_bytes) AS bytes, count(*) AS partitions FROM eros.status_cache c) c
		CROSS JOIN LATERAL (VALUES
			('live_bytes', i.cache_bytes),
			('limit_bytes', pg_size_bytes(current_setting('eros.cache_limit'))),
			('disk_bytes', coalesce(c.bytes, 0)::double precision),
			('partitions', c.partitions),
			('evicted_total', i.evicted)) v(name, value)
	UNION ALL
		SELECT 'halts', 'eros_halts_total', '', jsonb_build_object('reason', v.reason), v.value
		FROM eros.database_info() i CROSS JOIN eros.halt_info() h CROSS JOIN LATERAL (VALUES
			('return', h.halts),
			('waiter', i.gave_way),
			('pause', greatest(i.halts - h.halts - i.gave_way, 0))) v(reason, value)
	UNION ALL
		-- in seconds by way of numeric: a bound is a label, and 0.064 / 1000 not quite 0.000064
		SELECT 'halt', 'eros_halt_latency_seconds', '_bucket',
			   jsonb_build_object('le', coalesce((b.upper_ms::numeric / 1000)::double precision::text, '+Inf')), b.halts
		FROM eros.halt_histogram() b
	UNION ALL
		SELECT 'halt', v.family, v.suffix, '{}', v.value
		FROM eros.halt_info() h CROSS JOIN LATERAL (VALUES
			('eros_halt_latency_seconds', '_sum', h.sum_ms / 1000),
			('eros_halt_latency_seconds', '_count', h.halts),
			('eros_halt_forced_total', '', h.forced)) v(family, suffix, value)
	UNION ALL
		SELECT 'operation', 'eros_operation_' || v.name, '', jsonb_build_object('operation', l.operation), v.value
		FROM eros.status_latency l CROSS JOIN LATERAL (VALUES
			('calls_total', l.measured),
			('seconds_total', coalesce(l.measured * l.mean_ms / 1000, 0)),
			('slowest_seconds', coalesce(l.max_ms / 1000, 0))) v(name, value)
	UNION ALL
		SELECT 'problem', 'eros_problem_rows', '', jsonb_build_object('problem', p.problem, 'severity', p.severity), count(*)
		FROM problem p
		GROUP BY p.problem, p.severity
	UNION ALL
		SELECT 'prediction_' || p.unit, format('eros_prediction_%s_%s', p.unit, p.source), '', p.labels, p.value
		FROM prediction p WHERE p.unit IN ('jobs', 'users')
	UNION ALL
		SELECT 'prediction_time', format('eros_prediction_time_%s_seconds', p.source), '', p.labels, p.value
		FROM prediction p WHERE p.unit = 'seconds'
	UNION ALL
		SELECT 'prediction_size', format('eros_prediction_size_%s_bytes', p.source), '', p.labels, p.value
		FROM prediction p WHERE p.unit = 'bytes'
	) s
	JOIN eros.metric_family f ON f.subject = s.subject AND f.name = s.family
	WHERE s.value IS NOT NULL;
COMMENT ON VIEW eros.metrics IS 'all figures of this database and of the server for Prometheus, one row for each sample; who reads those of the database counts as a scrape';
COMMENT ON COLUMN eros.metrics.subject IS 'what it is about; a query for one subject costs no more than that';
COMMENT ON COLUMN eros.metrics.family IS 'the metric, as in eros.metric_family';
COMMENT ON COLUMN eros.metrics.name IS 'the sample''s name: the metric''s, with _bucket, _sum or _count for a histogram';
COMMENT ON COLUMN eros.metrics.type IS 'counter, gauge or histogram';
COMMENT ON COLUMN eros.metrics.help IS 'what it is';
COMMENT ON COLUMN eros.metrics.labels IS 'the labels, an object of strings: datname, and those of eros.metric_family';
COMMENT ON COLUMN eros.metrics.value IS 'the value, in the unit of the name';

CREATE FUNCTION eros.metrics_text() RETURNS text
	LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off SET extra_float_digits = 1
	-- a backslash first, so that those of the other escapes stay single
	AS $$
	SELECT string_agg(
			format(E'# HELP %s %s\n# TYPE %s %s\n', g.family, g.help, g.family, g.type) || g.samples,
			'' ORDER BY g.family COLLATE "C")
	FROM (
		SELECT m.family, m.type,
			   replace(replace(m.help, E'\\', E'\\\\'), E'\n', E'\\n') AS help,
			   string_agg(format(E'%s{%s} %s\n', m.name, l.labels, m.value), ''
						  ORDER BY m.labels - 'le', m.name COLLATE "C", (m.labels ->> 'le')::double precision) AS samples
		FROM eros.metrics m
		CROSS JOIN LATERAL (
			SELECT string_agg(format('%s="%s"', e.key,
					replace(replace(replace(e.value, E'\\', E'\\\\'), '"', E'\\"'), E'\n', E'\\n')),
					',' ORDER BY e.key COLLATE "C") AS labels
			FROM jsonb_each_text(m.labels) e) l
		GROUP BY 1, 2, 3) g
	$$;
COMMENT ON FUNCTION eros.metrics_text() IS
	'eros.metrics in the text format of Prometheus, for a file that the node exporter reads, or any HTTP server';

------------------------------------------------------------------------------
-- In the terminal
------------------------------------------------------------------------------

CREATE FUNCTION eros.recent_rates(
	seconds double precision, OUT phase smallint, OUT span double precision, OUT transitions double precision,
	OUT users_done double precision, OUT granted_percent double precision, OUT used_percent double precision)
	RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'eros_recent_rates' LANGUAGE C VOLATILE STRICT ROWS 9;
COMMENT ON FUNCTION eros.recent_rates(double precision) IS
	'internal: what went on since this session looked about so many seconds ago, by second and in percent of a core; phase 0: returns and the scheduler. No row at a session''s first look';

CREATE FUNCTION eros.show_number(n numeric) RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
	SELECT CASE
		WHEN n IS NULL OR n = 'NaN' THEN '-'
		WHEN abs(n) < 99.95 AND n <> trunc(n) THEN to_char(n, 'FM990.0')
		WHEN abs(n) < 999999.5 THEN to_char(n, 'FM999,990')
		WHEN abs(n) < 999950000 THEN to_char(n / 1000000, 'FM999,990.0') || ' M'
		ELSE to_char(n / 1000000000, 'FM999,999,990.0') || ' G'
	END
$$;
COMMENT ON FUNCTION eros.show_number(numeric) IS
	'internal: a number for people, such as 12,345 or 1.2 M; - for NULL';

CREATE FUNCTION eros.show_ms(ms double precision) RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
	SELECT CASE
		WHEN ms IS NULL OR ms = 'NaN' THEN '-'
		WHEN ms = 0 THEN '0 ms'
		WHEN abs(ms) < 0.995 THEN to_char(ms, 'FM0.00') || ' ms'
		WHEN abs(ms) < 9.95 THEN to_char(ms, 'FM0.0') || ' ms'
		WHEN abs(ms) < 999.5 THEN to_char(ms, 'FM990') || ' ms'
		WHEN abs(ms) < 99950 THEN to_char(ms / 1000, 'FM90.0') || ' s'
		WHEN abs(ms) < 5970000 THEN to_char(ms / 60000, 'FM90') || ' min'
		WHEN abs(ms) < 172800000 THEN to_char(ms / 3600000, 'FM90.0') || ' h'
		ELSE to_char(ms / 86400000, 'FM999,990') || ' days'
	END
$$;
COMMENT ON FUNCTION eros.show_ms(double precision) IS
	'internal: a time for people, from milliseconds, such as 0.42 ms or 12 min; - for NULL';

CREATE FUNCTION eros.show_bytes(bytes numeric) RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
	SELECT CASE
		WHEN bytes IS NULL THEN '-'
		WHEN abs(bytes) < 1000 THEN bytes::bigint || ' B'
		WHEN abs(bytes) < 1023.5 * 1024 THEN to_char(bytes / 1024, 'FM9,990') || ' kB'
		WHEN abs(bytes) < 99.95 * 1024 ^ 2 THEN to_char(bytes / 1024 ^ 2, 'FM990.0') || ' MB'
		WHEN abs(bytes) < 1023.5 * 1024 ^ 2 THEN to_char(bytes / 1024 ^ 2, 'FM9,990') || ' MB'
		ELSE to_char(bytes / 1024 ^ 3, 'FM999,999,990.0') || ' GB'
	END
$$;
COMMENT ON FUNCTION eros.show_bytes(numeric) IS
	'internal: a size for people, such as 2.8 MB, with units of 1024; - for NULL';

CREATE FUNCTION eros.show_interval(span interval) RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
	SELECT CASE
		WHEN span >= interval '1 minute' AND date_part('epoch', span)::numeric % 86400 = 0
			THEN date_part('epoch', span)::numeric::bigint / 86400 || ' d'
		WHEN span >= interval '1 minute' AND date_part('epoch', span)::numeric % 3600 = 0
			THEN date_part('epoch', span)::numeric::bigint / 3600 || ' h'
		WHEN span >= interval '1 minute' AND date_part('epoch', span)::numeric % 60 = 0
			THEN date_part('epoch', span)::numeric::bigint / 60 || ' min'
		ELSE eros.show_ms(1000 * date_part('epoch', span))
	END
$$;
COMMENT ON FUNCTION eros.show_interval(interval) IS
	'internal: a setting''s interval for people, such as 10 min or 24 h; - for NULL';

CREATE FUNCTION eros.show_text(word text, columns integer) RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
	SELECT CASE WHEN columns < 0 THEN lpad(left(w, -columns), -columns) ELSE rpad(left(w, columns), columns) END
	FROM (SELECT regexp_replace(coalesce(word, '-'), '[[:cntrl:]]', '?', 'g') AS w) AS printable
$$;
COMMENT ON FUNCTION eros.show_text(text, integer) IS
	'internal: a word in a column of that width, to the left, or to the right when the width is negative; control characters become ?';

CREATE FUNCTION eros.show_bar(
	used double precision, granted double precision, share double precision, columns integer, ascii boolean)
	RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
	SELECT CASE WHEN ascii
		THEN repeat('#', full_cells) || repeat('=', granted_cells - full_cells) || repeat('.', columns - granted_cells)
		ELSE repeat(chr(9608), full_cells)
			-- an eighth to seven eighths of a block
			|| CASE WHEN eighths > 0 THEN chr(9616 - eighths) ELSE '' END
			|| repeat(chr(9618), granted_cells - full_cells - sign(eighths)::integer)
			|| repeat(chr(9617), columns - greatest(granted_cells, full_cells + sign(eighths)::integer))
		END
	FROM (SELECT floor(u)::integer AS full_cells,
			CASE WHEN ascii THEN 0 ELSE floor(8 * (u - floor(u)))::integer END AS eighths,
			greatest(round(g), floor(u))::integer AS granted_cells
		FROM (SELECT columns * least(1, greatest(0, coalesce(used / nullif(share, 0), 0))) AS u,
				columns * least(1, greatest(0, coalesce(granted / nullif(share, 0), 0))) AS g) AS part) AS cell
$$;
COMMENT ON FUNCTION eros.show_bar(double precision, double precision, double precision, integer, boolean) IS
	'internal: a bar as long as the share, with the part used and the part granted, but not used, drawn in blocks or in ASCII';

CREATE FUNCTION eros.top_rates(
	seconds double precision, OUT phase smallint, OUT span double precision, OUT transitions double precision,
	OUT users_done double precision, OUT granted_percent double precision, OUT used_percent double precision)
	RETURNS SETOF record
	LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN QUERY SELECT r.* FROM eros.recent_rates(top_rates.seconds) r;
	IF NOT FOUND THEN
		RETURN QUERY
			SELECT c.phase, s.span, c.transitions / s.span, c.users_done / s.span,
				   c.granted_ms / s.span / 10, c.used_ms / s.span / 10
			FROM (SELECT greatest(1, extract(epoch FROM clock_timestamp() - i.stats_since))::double precision AS span
				  FROM eros.database_info() i) s
			CROSS JOIN (
				SELECT i.phase, i.transitions, i.users_done, i.cpu_granted_ms AS granted_ms, i.cpu_used_ms AS used_ms
				FROM eros.phase_info() i
				UNION ALL
				SELECT 0::smallint, i.returns, 0, 0, i.scheduler_cpu_ms FROM eros.database_info() i) c;
	END IF;
END $$;
COMMENT ON FUNCTION eros.top_rates(double precision) IS
	'internal: the rates that eros.top() shows; at a session''s first look those since the server''s start';

CREATE FUNCTION eros.top_phases(columns integer, seconds double precision, ascii boolean) RETURNS SETOF text
	LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	WITH rate AS MATERIALIZED (
		SELECT r.* FROM eros.top_rates(seconds) r
	), share AS (
		SELECT p.phase, eros.show_interval(p.idle_after) AS idle, p.users, p.jobs_pending AS jobs, r.users_done,
			   r.used_percent AS used, r.granted_percent AS granted,
			   least(p.cpu_percent * current_setting('eros.workers')::integer,
					 current_setting('eros.cpu_cap')::double precision * eros.cpu_cores()) AS promised
		FROM eros.status_phase p LEFT JOIN rate r USING (phase)
		UNION ALL
		SELECT NULL, 'all', sum(p.users), sum(p.jobs_pending), sum(r.users_done),
			   sum(r.used_percent), 0, current_setting('eros.cpu_cap')::double precision * eros.cpu_cores()
		FROM rate r LEFT JOIN eros.status_phase p USING (phase)
	), line AS (
		SELECT phase, eros.show_text(coalesce(phase::text, ''), -5) || eros.show_text(idle, -9)
			|| eros.show_text(eros.show_number(users), -9) || eros.show_text(eros.show_number(jobs), -9)
			|| eros.show_text(eros.show_number(round(users_done::numeric, 1)), -8) || '  '
			|| eros.show_bar(used, granted, promised, columns - 57, ascii)
			|| eros.show_text(eros.show_number(round(coalesce(used, 0)::numeric, 1)), -5) || ' of'
			|| eros.show_text(eros.show_number(round(promised::numeric, 1)), -5) || ' %' AS text
		FROM share
	)
	SELECT eros.show_text('phase idle for    users     jobs  done/s  CPU used of the share, '
		|| (SELECT 'last ' || eros.show_ms(1000 * round(min(r.span)::numeric, 1)::double precision) FROM rate r), columns)
	UNION ALL
	(SELECT text FROM line ORDER BY phase NULLS LAST)
$$;
COMMENT ON FUNCTION eros.top_phases(integer, double precision, boolean) IS 'internal: the phases in eros.top()';

CREATE FUNCTION eros.top_workers(columns integer) RETURNS SETOF text
	LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	SELECT eros.show_text('worker  activity         ' || eros.show_text('handler', columns - 57)
		|| ' phase  users      batch   grant', columns)
	UNION ALL
	(SELECT eros.show_text(w.worker::text, -6) || '  ' || eros.show_text(w.activity, 15) || '  '
		|| eros.show_text(coalesce(w.handler, ''), columns - 57) || eros.show_text(coalesce(w.phase::text, ''), -6)
		|| eros.show_text(coalesce(w.batch_users::text, ''), -7)
		|| eros.show_text(coalesce(eros.show_ms(1000 * extract(epoch FROM w.batch_age)::double precision), ''), -11)
		|| eros.show_text(coalesce(round(w.grant_percent) || ' %', ''), -8)
	FROM eros.status_worker w
	ORDER BY w.handler IS NULL, w.worker)
	UNION ALL
	SELECT '        no worker runs: there is nothing to do, or it is not allowed'
	WHERE NOT EXISTS (SELECT FROM eros.worker_info())
$$;
COMMENT ON FUNCTION eros.top_workers(integer) IS 'internal: the workers in eros.top(), the busy ones first';

CREATE FUNCTION eros.top_queue(columns integer) RETURNS SETOF text
	LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	SELECT eros.show_text('queue  ' || eros.show_text('handler', columns - 50)
		|| ' phase     jobs   failed   waits for', columns)
	UNION ALL
	(SELECT '       ' || eros.show_text(q.handler, columns - 50) || eros.show_text(q.phase::text, -6)
		|| eros.show_text(eros.show_number(q.jobs_pending), -9) || eros.show_text(eros.show_number(q.jobs_failed), -9)
		|| eros.show_text(eros.show_ms(1000 * extract(epoch FROM q.oldest_wait)::double precision), -12)
	FROM eros.status_queue q
	ORDER BY q.jobs_pending + q.jobs_failed = 0, q.oldest_wait DESC NULLS LAST, q.jobs_pending DESC, q.phase, q.handler
	LIMIT 100)
$$;
COMMENT ON FUNCTION eros.top_queue(integer) IS 'internal: the queue in eros.top(), the longest wait first';

CREATE FUNCTION eros.top_halts(columns integer) RETURNS SETOF text
	LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	SELECT eros.show_text(CASE WHEN h.halts > 0
		THEN format('halts  %s by returns: half within %s, 99 %% within %s, longest %s',
			eros.show_number(h.halts), eros.show_ms(h.p50_ms), eros.show_ms(h.p99_ms), eros.show_ms(h.max_ms))
		ELSE 'halts  none by returns' END, columns)
	FROM eros.status_halt h
	UNION ALL
	(SELECT eros.show_text(eros.show_ms(greatest(0, 1000 * extract(epoch FROM clock_timestamp() - r.halted_at))
			::double precision) || ' ago', -13)
		|| '  ' || eros.show_text(r.handler, columns - 59) || eros.show_text('phase ' || r.phase, -9)
		|| eros.show_text(eros.show_ms(r.latency_ms), -10)
		|| eros.show_text(CASE r.reason WHEN 'return' THEN '  a user was back' WHEN 'waiter' THEN '  somebody waited for a lock'
			ELSE '  eros.pause()' END, 25)
	FROM eros.status_halt_recent r
	ORDER BY r.halted_at DESC)
$$;
COMMENT ON FUNCTION eros.top_halts(integer) IS 'internal: the last halts in eros.top()';

CREATE FUNCTION eros.top_head(columns integer) RETURNS SETOF text
	LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	WITH s AS MATERIALIZED (
		SELECT * FROM eros.status
	)
	SELECT eros.show_text('EROS in ' || current_database(), columns - 35)
		|| eros.show_text(format('up %s   %s', eros.show_ms(1000 * extract(epoch FROM clock_timestamp() - s.stats_since)
			::double precision), to_char(clock_timestamp(), 'YYYY-MM-DD HH24:MI:SS')), -35)
	FROM s
	UNION ALL
	SELECT eros.show_text('status ' || s.status, columns) FROM s
	UNION ALL
	SELECT eros.show_text(format('users  %s active, %s idle; results %s%s%s',
		eros.show_number(s.active_users), eros.show_number(s.idle_users), eros.show_bytes(s.cache_bytes),
		CASE WHEN s.cache_limit_bytes > 0 THEN ' of ' || eros.show_bytes(s.cache_limit_bytes) ELSE '' END,
		', ' || round(100.0 * h.hits / nullif(h.hits + h.misses, 0)) || ' % hits'), columns)
	FROM s, (SELECT sum(hits) AS hits, sum(misses) AS misses FROM eros.status_handler) h
$$;
COMMENT ON FUNCTION eros.top_head(integer) IS 'internal: the first lines of eros.top()';

CREATE FUNCTION eros.top(
	width integer DEFAULT 80, height integer DEFAULT 24, seconds double precision DEFAULT 5, ascii boolean DEFAULT NULL)
	RETURNS TABLE (screen text)
	LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
	-- psql's own lines: \watch's title and the line after it, the column's name and a rule, the tally and the line after it
	room integer := greatest(coalesce(height, 24) - 7, 1);
	columns integer := greatest(coalesce(width, 80), 72) - 2;
	plain boolean := coalesce(ascii, getdatabaseencoding() <> 'UTF8' OR current_setting('client_encoding') <> 'UTF8');
	head text[] := ARRAY(SELECT eros.top_head(columns));
	phases text[] := ARRAY(SELECT eros.top_phases(columns, coalesce(seconds, 5), plain));
	workers text[] := ARRAY(SELECT eros.top_workers(columns));
	queue text[] := ARRAY(SELECT eros.top_queue(columns));
	halts text[] := ARRAY(SELECT eros.top_halts(columns));
	parts integer[];
	gap text[] := '{}'::text[];
	spare integer;
BEGIN
	-- what is left below the fixed lines goes round: a worker, a handler of the queue, a halt
	spare := room - cardinality(head) - cardinality(phases);
	parts := ARRAY(
		SELECT (count(*) FILTER (WHERE l.part = p.part))::integer
		FROM generate_series(1, 3) AS p (part) CROSS JOIN (
			SELECT part FROM (
				SELECT 1 AS part, generate_subscripts(workers, 1) AS n
				UNION ALL SELECT 2, generate_subscripts(queue, 1)
				UNION ALL SELECT 3, generate_subscripts(halts, 1)) AS one
			ORDER BY n, part LIMIT greatest(spare, 0)) AS l
		GROUP BY p.part ORDER BY p.part);
	IF spare - cardinality(workers) - cardinality(queue) - cardinality(halts) >= 4 THEN
		gap := ARRAY[''];
	END IF;
	RETURN QUERY
		SELECT l FROM unnest(
			head || gap || phases || gap || workers[1:parts[1]] || gap || queue[1:parts[2]] || gap || halts[1:parts[3]]
			|| array_fill(''::text, ARRAY[room])) WITH ORDINALITY AS line (l, n)
		ORDER BY n LIMIT room;
END $$;
COMMENT ON FUNCTION eros.top(integer, integer, double precision, boolean) IS
	'a screen like that of top, for psql''s \watch 1: phases with the CPU used of their share, workers, queue, last halts. It fits a terminal of that many columns (at least 72) and lines, with what psql prints around it. Rates are those of about the last so many seconds of this session''s looks; at its first look those since the server''s start. ascii: bars without block characters, by default when the encoding has none';

------------------------------------------------------------------------------
-- Report: one page for a browser
------------------------------------------------------------------------------

/*
 * Whatever was named or written by somebody (and all other text, for good
 * measure) reaches the page through eros.report_escape() only: report_row()
 * and report_figure() escape what they are given, so that the functions of the
 * sections need to think of it only where they write markup themselves.
 */
CREATE FUNCTION eros.report_escape(given text) RETURNS text
	AS 'MODULE_PATHNAME', 'eros_report_escape' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION eros.report_escape(text) IS
	'internal: a text for HTML or SVG, in text and in attributes, as ASCII: markup and all beyond ASCII as numeric references, what may not stand there as U+FFFD';

CREATE FUNCTION eros.report_row(alignment text, cells text[], head text[] DEFAULT '{}') RETURNS text
	LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT '<tr>' || string_agg(CASE substr(alignment, n::integer, 1)
			WHEN 'h' THEN '<th scope="row">' || eros.report_escape(shown) || '</th>'
			WHEN 'r' THEN format('<td class="r"%s>%s</td>', named, eros.report_escape(shown))
			WHEN 's' THEN format('<td%s><span class="state s%s">%s</span></td>', named,
				array_position(ARRAY['ok', 'attention', 'to do', 'does not apply', 'critical', 'warning'], cell), eros.report_escape(shown))
			WHEN 'b' THEN format('<td class="r bar"%s>%s<span style="width:%s%%"></span></td>', named,
				eros.report_escape(split_part(cell, '|', 2)),
				round(100 * greatest(0, least(1, coalesce(nullif(split_part(cell, '|', 1), ''), '0')::numeric)), 1))
			ELSE format('<td class="l"%s>%s</td>', named, eros.report_escape(shown))
		END, '' ORDER BY n) || E'</tr>\n'
	FROM (
		SELECT cell, coalesce(cell, '-') AS shown, coalesce(' data-h="' || eros.report_escape(head[n]) || '"', '') AS named, n
		FROM unnest(cells) WITH ORDINALITY AS c (cell, n)) AS c
$$;
COMMENT ON FUNCTION eros.report_row(text, text[], text[]) IS
	'internal: a row of a table, escaped; how its cells are shown, a letter each: h heading, l text, r number, s state, b a bar given as part|text. With the names of the columns, each cell knows its own: on a narrow screen the row is a list';

CREATE FUNCTION eros.report_table(caption text, alignment text, head text[], body text) RETURNS text
	LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT format(E'<div class="scroll%4$s" role="region" aria-label="%1$s" tabindex="0"><table><caption>%1$s</caption>\n<thead><tr>%2$s</tr></thead>\n<tbody>\n%3$s</tbody></table></div>\n',
		eros.report_escape(caption),
		(SELECT string_agg(format('<th scope="col"%s>%s</th>',
				CASE WHEN substr(alignment, n::integer, 1) IN ('r', 'b') THEN ' class="r"' ELSE '' END, eros.report_escape(h)), '' ORDER BY n)
			FROM unnest(head) WITH ORDINALITY AS c (h, n)), body,
		-- no text can have this: its quotes are escaped
		CASE WHEN strpos(body, ' data-h="') > 0 THEN ' list' ELSE '' END)
$$;
COMMENT ON FUNCTION eros.report_table(text, text, text[], text) IS
	'internal: a table with a caption, of rows made by eros.report_row()';

CREATE FUNCTION eros.report_area(upper_edge double precision[], lower_edge double precision[], top double precision, class text)
	RETURNS text
	LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
	-- steps; a NULL is a gap
	WITH step AS (
		SELECT n, u, round((n - 1) * 1000.0 / cardinality(upper_edge)) AS x0, round(n * 1000.0 / cardinality(upper_edge)) AS x1,
			   round(400 - 400 * least(1, greatest(0, u / greatest(top, 1e-9)))::numeric) AS y,
			   round(400 - 400 * least(1, greatest(0, coalesce(l, 0) / greatest(top, 1e-9)))::numeric) AS low,
			   count(*) FILTER (WHERE u IS NULL) OVER (ORDER BY n) AS island
		FROM unnest(upper_edge, coalesce(lower_edge, '{}')) WITH ORDINALITY AS e (u, l, n)
	), part AS (
		SELECT 'M' || string_agg(format('%s %sH%s', x0, y, x1), 'L' ORDER BY n)
			|| 'L' || string_agg(format('%s %sH%s', x1, low, x0), 'L' ORDER BY n DESC) || 'Z' AS d
		FROM step WHERE u IS NOT NULL GROUP BY island
	)
	SELECT coalesce('<path class="' || class || '" d="' || string_agg(d, '') || E'"/>\n', '') FROM part
$$;
COMMENT ON FUNCTION eros.report_area(double precision[], double precision[], double precision, text) IS
	'internal: an area between two edges (NULL: above 0) in a drawing of 1000 by 400';

CREATE FUNCTION eros.report_top(value double precision) RETURNS double precision
	LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT coalesce(min(m * p), 1) FROM (SELECT 10 ^ floor(log(greatest(value, 1e-3)))) AS d (p), unnest('{1,1.5,2,3,4,5,6,8,10}'::double precision[]) AS m
	WHERE m * p >= greatest(value, 1e-3) * 0.9999
$$;
COMMENT ON FUNCTION eros.report_top(double precision) IS 'internal: the end of an axis for values up to this';

CREATE FUNCTION eros.report_legend(names text[], classes text[]) RETURNS text
	LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT E'<ul class="legend">' || string_agg(format('<li><svg width="20" height="12" aria-hidden="true">%s</svg> %s</li>',
		CASE class WHEN 'promise' THEN '<path class="promise" d="M0 6H20"/>' ELSE format('<rect class="%s" x="4" width="12" height="12"/>', class) END,
		eros.report_escape(name)), '' ORDER BY n) || E'</ul>\n'
	FROM unnest(names, classes) WITH ORDINALITY AS l (name, class, n)
	WHERE name IS NOT NULL
$$;
COMMENT ON FUNCTION eros.report_legend(text[], text[]) IS 'internal: what the colours and lines of a drawing stand for; a name that is NULL is left out';

CREATE FUNCTION eros.report_details(caption text, head text[], body text) RETURNS text
	LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT format(E'<details><summary>As a table: %s</summary>\n', eros.report_escape(caption))
		|| eros.report_table(caption, 'h' || repeat('r', cardinality(head) - 1), head, body) || E'</details>\n'
$$;
COMMENT ON FUNCTION eros.report_details(text, text[], text) IS
	'internal: the figures of a drawing as a table that is folded up: a heading and numbers';

CREATE FUNCTION eros.report_figure(
	name text, caption text, description text, drawing text, top text, marks text[], legend text DEFAULT '') RETURNS text
	LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT format(E'<figure>\n<figcaption>%2$s</figcaption>\n<div class="plot"><svg viewBox="0 0 1000 400" preserveAspectRatio="none" role="img" aria-labelledby="%1$s-t %1$s-d"><title id="%1$s-t">%2$s</title><desc id="%1$s-d">%3$s</desc>\n<path class="grid" d="M0 100H1000M0 200H1000M0 300H1000"/>\n%4$s</svg><span class="top" aria-hidden="true">%5$s</span></div>\n<div class="marks" aria-hidden="true">%6$s</div>\n%7$s</figure>\n',
		name, eros.report_escape(caption), eros.report_escape(description), drawing, eros.report_escape(top),
		(SELECT string_agg('<span>' || eros.report_escape(m) || '</span>', '' ORDER BY n) FROM unnest(marks) WITH ORDINALITY AS k (m, n)), legend)
$$;
COMMENT ON FUNCTION eros.report_figure(text, text, text, text, text, text[], text) IS
	'internal: a drawing of 1000 by 400 that fills the width, with its name and description for those who do not see it';

CREATE FUNCTION eros.report_section(name text, heading text, body text) RETURNS text
	LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT format(E'<section id="%1$s" aria-labelledby="%1$s-h">\n<h2 id="%1$s-h">%2$s</h2>\n%3$s</section>\n', name, eros.report_escape(heading), body)
$$;
COMMENT ON FUNCTION eros.report_section(text, text, text) IS 'internal: a part of the page, with its heading';

CREATE FUNCTION eros.report_unit(value double precision, unit text) RETURNS text
	LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT CASE unit WHEN 'bytes' THEN eros.show_bytes(value::numeric) WHEN 'seconds' THEN eros.show_ms(1000 * value)
		ELSE eros.show_number(round(value::numeric, 1)) || coalesce(' ' || unit, '') END
	WHERE value < 'infinity' AND value > '-infinity'
$$;
COMMENT ON FUNCTION eros.report_unit(double precision, text) IS 'internal: a value with its unit; NULL when it is not a number';

CREATE FUNCTION eros.report_percent(value double precision) RETURNS text
	LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT CASE WHEN value IS NULL THEN '-' WHEN value >= 0.995 THEN eros.show_number(round(value::numeric, 1))
		WHEN value < 0.0005 THEN '0' ELSE to_char(value, 'FM0.099') END || ' %'
$$;
COMMENT ON FUNCTION eros.report_percent(double precision) IS 'internal: percent of a core, which may be very little';

CREATE TYPE eros.report_sample AS (
	n integer, at timestamptz, phase smallint, users double precision, granted double precision, used double precision,
	jobs double precision, bytes double precision);
COMMENT ON TYPE eros.report_sample IS
	'internal: a stretch of the day that the report draws, for a phase: users, CPU granted and used in percent of a core, pending jobs; phase 0: active users, the scheduler''s CPU, bytes of the cache';

CREATE FUNCTION eros.report_day() RETURNS SETOF eros.report_sample
	LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	WITH server AS MATERIALIZED (
		SELECT h.* FROM eros.history_server h WHERE h.span = interval '1 minute'
	), day AS (
		-- 144 stretches: of ten minutes, or less when the history is shorter; of a minute at least
		SELECT u.until, greatest((u.until - greatest(min(h.sampled_at) - interval '1 minute', u.until - interval '1 day')) / 144,
			interval '1 minute') AS step
		FROM server h, (SELECT date_trunc('minute', eros.now()) AS until) AS u
		GROUP BY u.until
	), sample AS (
		SELECT 0::smallint AS phase, h.sampled_at, h.active_users AS users, 0::double precision AS granted, h.scheduler_cpu_ms AS used,
			   0::bigint AS jobs, h.cache_bytes AS bytes
		FROM server h
		UNION ALL
		SELECT h.phase, h.sampled_at, h.users, h.cpu_granted_ms, h.cpu_used_ms, h.jobs_pending, NULL
		FROM eros.history_phase h WHERE h.span = interval '1 minute'
	), measured AS (
		SELECT 144 - floor(extract(epoch FROM d.until - s.sampled_at) / extract(epoch FROM d.step))::integer AS n, s.phase,
			   avg(s.users) AS users, avg(s.granted) / 600 AS granted, avg(s.used) / 600 AS used, avg(s.jobs) AS jobs, avg(s.bytes) AS bytes
		FROM sample s CROSS JOIN day d GROUP BY 1, 2
	)
	SELECT g.n, d.until - (144 - g.n) * d.step, p.phase, m.users::double precision, m.granted, m.used, m.jobs::double precision, m.bytes::double precision
	FROM day d CROSS JOIN generate_series(1, 144) AS g (n)
	CROSS JOIN (SELECT 0::smallint AS phase UNION ALL SELECT p.phase FROM eros.phase p) AS p
	LEFT JOIN measured m ON m.n = g.n AND m.phase = p.phase
	ORDER BY p.phase, g.n
$$;
COMMENT ON FUNCTION eros.report_day() IS
	'internal: the last day, or what there is of it, in 144 stretches for each phase; NULL where the server was down. No row: no history';

CREATE FUNCTION eros.report_marks(day eros.report_sample[]) RETURNS text[]
	LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT ARRAY(SELECT to_char(t.since + q * (t.until - t.since) / 4, 'HH24:MI')
		FROM (SELECT max(d.at) AS until, min(d.at) - (max(d.at) - min(d.at)) / 143 AS since FROM unnest(day) d) AS t, generate_series(0, 4) AS q)
$$;
COMMENT ON FUNCTION eros.report_marks(eros.report_sample[]) IS 'internal: the times below a drawing of the day';

CREATE FUNCTION eros.report_health() RETURNS text
	LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	WITH problem AS MATERIALIZED (
		SELECT p.*, row_number() OVER () AS n FROM eros.problems() p
	)
	SELECT CASE WHEN count(*) = 0
		THEN E'<div class="health ok"><p><strong><span aria-hidden="true">&#10003;</span> All is well</strong></p></div>\n'
		ELSE format(E'<div class="health %s"><ul>\n%s</ul></div>\n',
			CASE WHEN bool_or(severity = 'critical') THEN 'critical' ELSE 'warning' END,
			string_agg(format(E'<li><strong>%s: %s.</strong> %s <span class="where">%s</span></li>\n', initcap(eros.report_escape(severity)),
				eros.report_escape(message), eros.report_escape(hint), eros.report_escape(anchor)), '' ORDER BY n))
		END
	FROM problem
$$;
COMMENT ON FUNCTION eros.report_health() IS 'internal: is all well';

CREATE FUNCTION eros.report_tiles() RETURNS text
	LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	WITH s AS MATERIALIZED (
		SELECT * FROM eros.status
	), h AS MATERIALIZED (
		SELECT sum(hits) AS hits, sum(hits + misses) AS reads FROM eros.status_handler
	), tile (name, figure, note) AS (
		SELECT 'Active users', eros.show_number(s.active_users), format('%s of shared memory', eros.show_bytes(s.tracker_bytes)) FROM s
		UNION ALL
		SELECT 'Idle users', eros.show_number(s.idle_users), format('%s came back since the start', eros.show_number(s.returns)) FROM s
		UNION ALL
		SELECT 'Jobs pending', eros.show_number(s.jobs_pending), format('%s failed', eros.show_number(s.jobs_failed)) FROM s
		UNION ALL
		SELECT 'Workers', s.workers || ' of ' || s.workers_limit, format('%s of %s %% of a core since the start',
			eros.show_number(round(((s.cpu_used_ms + s.scheduler_cpu_ms) / 10 / greatest(1, extract(epoch FROM clock_timestamp() - s.stats_since)))::numeric, 1)),
			eros.show_number(round((current_setting('eros.cpu_cap')::double precision * eros.cpu_cores())::numeric)))
		FROM s
		UNION ALL
		SELECT 'Hits', coalesce(round(100.0 * h.hits / nullif(h.reads, 0)) || ' %', '-'), format('of %s reads', eros.show_number(h.reads)) FROM h
		UNION ALL
		SELECT 'Halt, 99 %', CASE WHEN t.halts > 0 THEN 'in ' || eros.show_ms(t.p99_ms) ELSE '-' END, format('of %s by returning users', eros.show_number(t.halts))
		FROM eros.status_halt t
	)
	SELECT E'<dl class="tiles">\n' || string_agg(format(E'<div><dt>%s</dt><dd><b>%s</b> <span>%s</span></dd></div>\n',
		eros.report_escape(name), eros.report_escape(figure), eros.report_escape(note)), '') || E'</dl>\n'
	FROM tile
$$;
COMMENT ON FUNCTION eros.report_tiles() IS 'internal: the figures at a glance';

CREATE FUNCTION eros.report_cpu(day eros.report_sample[]) RETURNS text
	LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	WITH phase AS MATERIALIZED (
		SELECT p.phase, p.idle_after, p.cpu_percent,
			   least(p.cpu_percent * current_setting('eros.workers')::integer, current_setting('eros.cpu_cap')::double precision * eros.cpu_cores()) AS share
		FROM eros.phase p
	), curve AS (
		SELECT d.phase, array_agg(d.used ORDER BY d.n) AS used, array_agg(d.granted ORDER BY d.n) AS granted, avg(d.used) AS mean,
			   max(d.used) AS most, avg(d.granted) AS mean_granted, p.share, p.idle_after, a.top, a.top >= p.share AS promise_seen,
			   array_agg(CASE WHEN d.used > p.share THEN d.used END ORDER BY d.n) AS beyond, array_agg(p.share ORDER BY d.n) AS shares,
			   max(d.used) > p.share AS over
		FROM unnest(day) d JOIN phase p USING (phase)
		CROSS JOIN LATERAL (
			-- what is used can be seen, and so can be the promise where both can
			SELECT CASE WHEN greatest(max(e.used), max(e.granted)) < 0.2 * p.share THEN eros.report_top(greatest(max(e.used), max(e.granted)))
				ELSE 1.05 * greatest(p.share, max(e.used), max(e.granted)) END AS top
			FROM unnest(day) e WHERE e.phase = p.phase) AS a
		GROUP BY d.phase, p.share, p.idle_after, a.top
	), figure AS (
		SELECT c.phase, eros.report_figure('cpu' || c.phase,
			format('Phase %s, idle for %s: %s of a core used, %s promised', c.phase, eros.show_interval(c.idle_after),
				eros.report_percent(c.mean), eros.report_percent(c.share)),
			format('CPU of phase %s over time. On average %s percent of a core, at most %s in a stretch, of %s promised; granted, since there was work: %s on average.',
				c.phase, round(c.mean::numeric, 3), round(c.most::numeric, 3), round(c.share::numeric, 1), round(c.mean_granted::numeric, 3)),
			eros.report_area(c.granted, NULL, c.top, 'granted')
				|| eros.report_area(c.used, NULL, c.top, 'f' || c.phase)
				|| eros.report_area(c.beyond, c.shares, c.top, 'bad')
				|| CASE WHEN c.promise_seen THEN format('<path class="promise" d="M0 %sH1000"/>', round((400 - 400 * c.share / greatest(c.top, 1e-9))::numeric)) ELSE '' END,
			eros.report_percent(c.top), eros.report_marks(day),
			eros.report_legend(ARRAY['used', 'granted, since there was work', CASE WHEN c.promise_seen THEN 'promised' END, CASE WHEN c.over THEN 'more than promised' END],
				ARRAY['f' || c.phase, 'granted', 'promise', 'bad'])
				|| CASE WHEN c.promise_seen THEN '' ELSE E'<p class="note">The promise is beyond this axis.</p>\n' END) AS html
		FROM curve c
	)
	SELECT eros.report_section('cpu', 'CPU against the promise',
		CASE WHEN cardinality(day) > 0
			THEN E'<div class="grid">\n' || coalesce((SELECT string_agg(html, '' ORDER BY phase) FROM figure), '') || E'</div>\n'
				|| eros.report_details('CPU used, in percent of a core',
					ARRAY['until'] || ARRAY(SELECT 'phase ' || p.phase FROM phase p ORDER BY p.phase) || ARRAY['scheduler'],
					(SELECT string_agg(eros.report_row('h' || repeat('r', 1 + (SELECT count(*)::integer FROM phase)), ARRAY[to_char(t.at, 'HH24:MI')] || t.used), '' ORDER BY t.at)
						FROM (SELECT max(s.at) AS at, array_agg(eros.report_percent(s.used) ORDER BY s.phase = 0, s.phase) AS used
							FROM (SELECT d.phase, (d.n - 1) / 6 AS hour, max(d.at) AS at, avg(d.used) AS used FROM unnest(day) d GROUP BY 1, 2) AS s
							GROUP BY s.hour) AS t))
			ELSE eros.report_table('Since the server''s start', 'hrrrr', ARRAY['phase', 'share of a core', 'CPU granted', 'CPU used', 'left to others'],
				(SELECT string_agg(eros.report_row('hrrrr', ARRAY[p.phase || ', idle for ' || eros.show_interval(p.idle_after), p.cpu_percent || ' %',
					eros.show_ms(p.cpu_granted_ms), eros.show_ms(p.cpu_used_ms), eros.show_ms(p.cpu_yielded_ms)]), '' ORDER BY p.phase)
				FROM eros.status_phase p)) END)
$$;
COMMENT ON FUNCTION eros.report_cpu(eros.report_sample[]) IS 'internal: CPU per phase against its share, over the day';

CREATE FUNCTION eros.report_users(day eros.report_sample[]) RETURNS text
	LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	WITH stacked AS (
		SELECT d.*, sum(d.users) OVER (PARTITION BY d.n ORDER BY d.phase DESC) AS upper_edge FROM unnest(day) d
	), top AS (
		SELECT eros.report_top(max(upper_edge)) AS top FROM stacked
	), area AS (
		SELECT s.phase, eros.report_area(array_agg(s.upper_edge ORDER BY s.n), array_agg(s.upper_edge - s.users ORDER BY s.n), t.top, 'stack f' || s.phase) AS path
		FROM stacked s CROSS JOIN top t GROUP BY s.phase, t.top
	), phase AS (
		SELECT p.phase, p.idle_after FROM eros.phase p
	)
	SELECT eros.report_section('users', 'Users by phase',
		CASE WHEN cardinality(day) > 0
			THEN eros.report_figure('users-day', 'Users, active and idle',
				(SELECT 'Users by phase over time, one above the other. Now: '
					|| string_agg(CASE WHEN s.phase = 0 THEN 'active ' ELSE 'phase ' || s.phase || ': ' END || eros.show_number(round(s.users::numeric)), ', ' ORDER BY s.phase) || '.'
					FROM stacked s WHERE s.n = 144),
				(SELECT string_agg(path, '' ORDER BY phase DESC) FROM area), (SELECT eros.show_number(top::numeric) FROM top), eros.report_marks(day),
				eros.report_legend(ARRAY['active'] || ARRAY(SELECT format('phase %s, idle for %s', p.phase, eros.show_interval(p.idle_after)) FROM phase p ORDER BY p.phase),
					ARRAY['f0'] || ARRAY(SELECT 'f' || p.phase FROM phase p ORDER BY p.phase)))
			|| eros.report_details('Users, on average',
				ARRAY['until', 'active'] || ARRAY(SELECT 'phase ' || p.phase FROM phase p ORDER BY p.phase),
				(SELECT string_agg(eros.report_row('h' || repeat('r', 1 + (SELECT count(*)::integer FROM phase)), ARRAY[to_char(t.at, 'HH24:MI')] || t.users), '' ORDER BY t.at)
					FROM (SELECT max(s.at) AS at, array_agg(eros.show_number(round(s.users::numeric)) ORDER BY s.phase) AS users
						FROM (SELECT d.phase, (d.n - 1) / 6 AS hour, max(d.at) AS at, avg(d.users) AS users FROM unnest(day) d GROUP BY 1, 2) AS s
						GROUP BY s.hour) AS t))
			ELSE eros.report_table('Users now', 'hrr', ARRAY['phase', 'users', 'crossings since the start'],
				(SELECT string_agg(eros.report_row('hrr', ARRAY[p.phase || ', idle for ' || eros.show_interval(p.idle_after), eros.show_number(p.users),
					eros.show_number(p.transitions)]), '' ORDER BY p.phase) FROM eros.status_phase p)) END)
$$;
COMMENT ON FUNCTION eros.report_users(eros.report_sample[]) IS 'internal: users by phase, over the day';

CREATE FUNCTION eros.report_queue(day eros.report_sample[]) RETURNS text
	LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	WITH curve AS (
		SELECT array_agg(s.jobs ORDER BY s.n) AS jobs, eros.report_top(max(s.jobs)) AS top, max(s.jobs) AS most
		FROM (SELECT d.n, sum(d.jobs) AS jobs FROM unnest(day) d GROUP BY 1) AS s
	), queue AS (
		SELECT q.*, count(*) OVER () AS handlers FROM eros.status_queue q
		WHERE q.jobs_pending + q.jobs_failed > 0
		ORDER BY q.oldest_wait DESC NULLS LAST, q.jobs_pending DESC, q.handler LIMIT 20
	)
	SELECT eros.report_section('queue', 'Queue',
		CASE WHEN cardinality(day) > 0 THEN (SELECT eros.report_figure('jobs', 'Pending jobs',
				format('Pending jobs over time, at most %s.', eros.show_number(round(c.most::numeric))),
				eros.report_area(c.jobs, NULL, c.top, 'f1'), eros.show_number(c.top::numeric), eros.report_marks(day)) FROM curve c)
			|| eros.report_details('Pending jobs', ARRAY['until', 'on average', 'at most'],
				(SELECT string_agg(eros.report_row('hrr', ARRAY[to_char(t.at, 'HH24:MI'), eros.show_number(round(t.mean::numeric)), eros.show_number(round(t.most::numeric))]), '' ORDER BY t.at)
				FROM (SELECT max(s.at) AS at, avg(s.jobs) AS mean, max(s.jobs) AS most
					FROM (SELECT d.n, d.at, sum(d.jobs) AS jobs FROM unnest(day) d GROUP BY 1, 2) AS s GROUP BY (s.n - 1) / 6) AS t))
			ELSE '' END
		|| coalesce((SELECT eros.report_table(format('Handlers with jobs%s, the longest wait first', CASE WHEN min(q.handlers) > 20 THEN format(', 20 of %s', min(q.handlers)) ELSE '' END),
			'hrrrr', ARRAY['handler', 'phase', 'pending', 'failed', 'oldest waits for'],
			string_agg(eros.report_row('hrrrr', ARRAY[q.handler, q.phase::text, eros.show_number(q.jobs_pending), eros.show_number(q.jobs_failed),
				eros.show_ms(1000 * extract(epoch FROM q.oldest_wait)::double precision)]), '' ORDER BY q.oldest_wait DESC NULLS LAST, q.jobs_pending DESC, q.handler))
			FROM queue q HAVING count(*) > 0), E'<p>No job is pending, and none has failed.</p>\n'))
$$;
COMMENT ON FUNCTION eros.report_queue(eros.report_sample[]) IS 'internal: the queue, over the day and now';

CREATE FUNCTION eros.report_halts() RETURNS text
	LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	-- an octave each, from what is below 0.064 ms to what is above 4 s
	WITH class AS (
		SELECT least(n, 17)::integer AS n, min(upper_ms) AS upper_ms, sum(halts - before) AS halts
		FROM (SELECT h.upper_ms, h.halts, row_number() OVER w - 1 AS n, lag(h.halts, 1, 0::bigint) OVER w AS before
			FROM eros.halt_histogram() h WINDOW w AS (ORDER BY h.upper_ms NULLS LAST)) AS c
		GROUP BY 1
	), most AS (
		SELECT greatest(max(halts), 1) AS most FROM class
	), h AS (
		SELECT * FROM eros.status_halt
	)
	SELECT eros.report_section('halts', 'How fast a returning user stops the work on him',
		CASE WHEN (SELECT coalesce(halts, 0) FROM h) = 0 THEN E'<p>No user has come back while a worker computed for him, since the server''s start.</p>\n'
		ELSE (SELECT eros.report_figure('halt-classes',
				format('%s halts: half within %s, 99 %% within %s, longest %s; promised below 500 ms', eros.show_number(h.halts), eros.show_ms(h.p50_ms), eros.show_ms(h.p99_ms), eros.show_ms(h.max_ms)),
				'Histogram of the latencies of halts: '
					|| (SELECT string_agg(format('%s up to %s', c.halts, eros.show_ms(c.upper_ms)), ', ' ORDER BY c.n) FROM class c WHERE c.halts > 0) || '.',
				(SELECT string_agg(format(E'<rect class="%s" x="%s" width="50" y="%s" height="%s"/>\n', CASE WHEN c.upper_ms IS NULL OR c.upper_ms > 525 THEN 'bad' ELSE 'f2' END,
					round(c.n * 1000.0 / 18 + 3), 400 - round(390.0 * c.halts / m.most), round(390.0 * c.halts / m.most)), '' ORDER BY c.n) FROM class c, most m WHERE c.halts > 0)
					|| format('<path class="promise" d="M%s 0V400"/>', round(14 * 1000.0 / 18)),
				(SELECT eros.show_number(most) FROM most), ARRAY['0', '0.7 ms', '16 ms', '370 ms', 'more'],
				eros.report_legend(ARRAY['halts', 'promised', (SELECT 'too late' FROM class c WHERE c.halts > 0 AND (c.upper_ms IS NULL OR c.upper_ms > 525) LIMIT 1)],
					ARRAY['f2', 'promise', 'bad'])) FROM h)
			|| eros.report_details('Halts by latency', ARRAY['up to', 'halts'],
				(SELECT string_agg(eros.report_row('hr', ARRAY[coalesce(eros.show_ms(c.upper_ms), 'more'), eros.show_number(c.halts)]), '' ORDER BY c.n) FROM class c))
		END
		|| (SELECT CASE WHEN h.forced > 0 THEN format(E'<p>%s workers were terminated because they did not yield.</p>\n', h.forced) ELSE '' END FROM h))
$$;
COMMENT ON FUNCTION eros.report_halts() IS 'internal: the latencies of halts';

CREATE FUNCTION eros.report_cache(day eros.report_sample[]) RETURNS text
	LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	WITH s AS MATERIALIZED (
		SELECT i.cache_bytes, nullif(pg_size_bytes(current_setting('eros.cache_limit')), 0) AS cache_limit, i.evicted FROM eros.database_info() i
	), h AS MATERIALIZED (
		SELECT sum(hits) AS hits, sum(misses) AS misses, sum(results_expired) AS expired, sum(results_unread) AS unread, sum(results_stored) AS stored FROM eros.status_handler
	), curve AS (
		SELECT array_agg(d.bytes ORDER BY d.n) AS bytes, max(d.bytes) AS most FROM unnest(day) d WHERE d.phase = 0
	), hour AS MATERIALIZED (
		SELECT k.sampled_at, sum(k.hits) AS hits, sum(k.misses) AS misses, sum(k.results_expired) AS expired, sum(k.results_unread) AS unread
		FROM eros.history_handler k
		WHERE k.span = interval '1 hour' AND k.sampled_at > eros.now() - interval '1 day' GROUP BY 1
	)
	SELECT eros.report_section('cache', 'Results',
		E'<div class="grid">\n'
		|| CASE WHEN cardinality(day) > 0 THEN (SELECT eros.report_figure('cache-bytes',
				format('%s kept%s', eros.show_bytes(s.cache_bytes), coalesce(format(', of %s', eros.show_bytes(s.cache_limit)), '')),
				format('Bytes of live results over time, at most %s.', eros.show_bytes(c.most::numeric)),
				eros.report_area(c.bytes, NULL, t.top, 'f0')
					|| CASE WHEN s.cache_limit <= t.top THEN format('<path class="promise" d="M0 %sH1000"/>', round((400 - 400 * s.cache_limit / t.top)::numeric)) ELSE '' END,
				eros.show_bytes(t.top::numeric), eros.report_marks(day),
				CASE WHEN s.cache_limit <= t.top THEN eros.report_legend(ARRAY['live results', 'eros.cache_limit'], ARRAY['f0', 'promise']) ELSE '' END)
			FROM s, curve c, LATERAL (SELECT eros.report_top(c.most / 1048576) * 1048576 AS top) AS t) ELSE '' END
		|| coalesce((SELECT eros.report_figure('hits', 'Reads that found a result, by hour',
				'Hit rate by hour: ' || string_agg(format('%s: %s', to_char(sampled_at, 'HH24:MI'), coalesce(round(100 * hits / nullif(hits + misses, 0)) || ' %', 'no read')), ', ' ORDER BY sampled_at) || '.',
				eros.report_area(array_agg((hits / nullif(hits + misses, 0))::double precision ORDER BY sampled_at), NULL, 1, 'f2'), '100 %',
				ARRAY[to_char(min(sampled_at) - interval '1 hour', 'HH24:MI'), to_char(max(sampled_at), 'HH24:MI')])
			FROM hour HAVING count(*) > 1 AND sum(hits + misses) > 0), '')
		|| E'</div>\n'
		|| CASE WHEN cardinality(day) > 0 THEN eros.report_details('Bytes of live results, on average', ARRAY['until', 'kept'],
				(SELECT string_agg(eros.report_row('hr', ARRAY[to_char(t.at, 'HH24:MI'), eros.show_bytes(round(t.bytes::numeric))]), '' ORDER BY t.at)
				FROM (SELECT max(d.at) AS at, avg(d.bytes) AS bytes FROM unnest(day) d WHERE d.phase = 0 GROUP BY (d.n - 1) / 6) AS t)) ELSE '' END
		|| coalesce((SELECT eros.report_details('Reads by hour', ARRAY['until', 'found', 'not found', 'hit rate'],
				string_agg(eros.report_row('hrrr', ARRAY[to_char(k.sampled_at, 'HH24:MI'), eros.show_number(k.hits), eros.show_number(k.misses),
					round(100 * k.hits / nullif(k.hits + k.misses, 0)) || ' %']), '' ORDER BY k.sampled_at))
			FROM hour k HAVING count(*) > 1 AND sum(k.hits + k.misses) > 0), '')
		|| (SELECT eros.report_table('Since the server''s start', 'hrr', ARRAY['results', 'number', 'part'],
			eros.report_row('hrr', ARRAY['stored', eros.show_number(h.stored), NULL])
			|| eros.report_row('hrr', ARRAY['reads that found one', eros.show_number(h.hits), coalesce(round(100 * h.hits / nullif(h.hits + h.misses, 0), 1) || ' %', '-')])
			|| eros.report_row('hrr', ARRAY['reads that found none', eros.show_number(h.misses), coalesce(round(100 * h.misses / nullif(h.hits + h.misses, 0), 1) || ' %', '-')])
			|| eros.report_row('hrr', ARRAY['expired', eros.show_number(h.expired), NULL])
			|| eros.report_row('hrr', ARRAY['of these, never read', eros.show_number(h.unread), coalesce(round(100 * h.unread / nullif(h.expired, 0), 1) || ' %', '-')])
			|| eros.report_row('hrr', ARRAY['evicted at the limit', eros.show_number(s.evicted), NULL])) FROM h, s))
$$;
COMMENT ON FUNCTION eros.report_cache(eros.report_sample[]) IS 'internal: the results kept, read, and never read';

CREATE FUNCTION eros.report_handlers() RETURNS text
	LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	WITH handler AS (
		SELECT h.*, w.unread_percent, w.suggestion, count(*) OVER () AS handlers, sum(h.cpu_used_ms) OVER () AS cpu_of_all,
			   row_number() OVER (ORDER BY h.error IS NULL, h.cpu_used_ms DESC, h.phase, h.handler) AS n
		FROM eros.status_handler h LEFT JOIN eros.status_worth w USING (handler)
	)
	SELECT eros.report_section('handlers', 'Handlers, by cost',
		coalesce((SELECT eros.report_table(
			CASE WHEN min(h.handlers) > 50 THEN format('The 50 of %s handlers that took the most CPU since the server''s start', min(h.handlers))
				ELSE 'Since the server''s start; worth: of the last 30 days' END,
			'hrbrrrrl', n.names,
			string_agg(eros.report_row('hrbrrrrl', ARRAY[h.handler, h.phase::text, concat_ws('|', coalesce(h.cpu_used_ms / nullif(h.cpu_of_all, 0), 0)::numeric, eros.show_ms(h.cpu_used_ms)),
				eros.show_number(h.users_done), eros.show_ms(h.cost_ms), h.hit_percent || ' %', h.unread_percent || ' %',
				CASE WHEN h.error IS NOT NULL THEN 'cannot be called: ' || h.error WHEN NOT h.enabled THEN 'disabled' ELSE h.suggestion END], n.names), '' ORDER BY h.n))
			FROM handler h CROSS JOIN (SELECT ARRAY['handler', 'phase', 'CPU', 'users served', 'CPU a user', 'hits', 'unread', 'worth'] AS names) AS n
			WHERE h.n <= 50 GROUP BY n.names),
			E'<p>There is no handler yet: register one with eros.add_handler().</p>\n'))
$$;
COMMENT ON FUNCTION eros.report_handlers() IS 'internal: the handlers, what they cost and whether it was worth it';

CREATE FUNCTION eros.report_checklist() RETURNS text
	LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	SELECT eros.report_section('checklist', 'Checklist for growth',
		eros.report_table('By the number of users from which it matters', 'hlslll', n.names,
			coalesce(string_agg(eros.report_row('hlslll', ARRAY[c.topic, c.level, c.state, c.measured, c.threshold, CASE WHEN c.state = 'ok' THEN '' ELSE c.advice END], n.names), '' ORDER BY c.item), '')))
	FROM eros.checklist() c CROSS JOIN (SELECT ARRAY['item', 'level', 'state', 'measured', 'threshold', 'what to do'] AS names) AS n
	GROUP BY n.names
$$;
COMMENT ON FUNCTION eros.report_checklist() IS 'internal: the growth checklist';

CREATE FUNCTION eros.report_prediction() RETURNS text
	LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	WITH figure AS (
		SELECT p.*, row_number() OVER (ORDER BY p.handler IS NOT NULL, p.measured DESC NULLS LAST, p.quantity, p.phase, p.handler) AS n, count(*) OVER () AS figures FROM eros.status_prediction p
	)
	SELECT eros.report_section('prediction', 'Prediction',
		eros.report_table(coalesce('What the formulas of eros.predict() say beside what was measured since '
				|| to_char(eros.prediction_cut(), 'YYYY-MM-DD HH24:MI')
				|| CASE WHEN min(f.figures) > 30 THEN format(': 30 of %s figures', min(f.figures)) ELSE '' END,
				'Not enough history yet'),
			'hlrrr', n.names,
			coalesce(string_agg(eros.report_row('hlrrr', ARRAY[f.quantity, coalesce(f.handler, 'phase ' || f.phase, ''), eros.report_unit(f.predicted, f.unit), eros.report_unit(f.measured, f.unit),
				f.error_percent || ' %'], n.names), '' ORDER BY f.n) FILTER (WHERE f.n IS NOT NULL), '')))
	FROM (SELECT ARRAY['quantity', 'of', 'predicted', 'measured', 'off by'] AS names) AS n LEFT JOIN figure f ON f.n <= 30
	GROUP BY n.names
$$;
COMMENT ON FUNCTION eros.report_prediction() IS 'internal: predicted beside measured';

CREATE FUNCTION eros.report_style() RETURNS text
	LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $report$
	SELECT $css$
:root {
  color-scheme: light dark;
  --page: #f4f6f8; --card: #ffffff; --text: #1a2230; --soft: #4f5b6a; --line: #d3d9e0;
  --ok: #14713a; --attention: #9a4a08; --todo: #1d4ed8; --critical: #b01c1c; --granted: #8a96a5; --promise: #1a2230;
  --c0: #0f766e; --c1: #2563eb; --c2: #7c3aed; --c3: #be185d; --c4: #b45309; --c5: #4d7c0f; --c6: #0e7490; --c7: #6d28d9; --c8: #9f1239;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #11151b; --card: #1a2029; --text: #e6eaf0; --soft: #a8b3c1; --line: #36404d;
    --ok: #4ade80; --attention: #fbbf24; --todo: #93c5fd; --critical: #fca5a5; --granted: #6b7a8f; --promise: #e6eaf0;
    --c0: #2dd4bf; --c1: #60a5fa; --c2: #a78bfa; --c3: #f472b6; --c4: #fbbf24; --c5: #a3e635; --c6: #22d3ee; --c7: #c4b5fd; --c8: #fb7185;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.25rem 1rem 3rem; max-width: 74rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { margin: 0; font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 0 0 .75rem; font-size: 1.15rem; }
p { margin: 0 0 .5rem; }
header p, footer p { color: var(--soft); font-size: .875rem; overflow-wrap: anywhere; }
section, .health { margin-top: 1rem; padding: 1rem; background: var(--card); border: 1px solid var(--line); border-radius: .5rem; }
.health { border-left: .375rem solid var(--attention); overflow-wrap: anywhere; }
.health.ok { border-left-color: var(--ok); } .health.ok strong { color: var(--ok); }
.health.critical { border-left-color: var(--critical); }
.health p { margin: 0; font-size: 1.15rem; } .health ul { margin: 0; padding-left: 1.1rem; }
.where { color: var(--soft); font-size: .875rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .75rem; margin: 1rem 0 0; }
.tiles div { padding: .75rem 1rem; background: var(--card); border: 1px solid var(--line); border-radius: .5rem; }
.tiles dt { color: var(--soft); font-size: .875rem; } .tiles dd { margin: 0; }
.tiles b { display: block; font-size: 1.5rem; line-height: 1.25; } .tiles span { color: var(--soft); font-size: .8125rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); gap: 1.25rem; }
figure { margin: 0 0 .75rem; min-width: 0; }
figcaption { margin-bottom: .375rem; font-size: .9375rem; font-weight: 600; }
.plot { position: relative; height: 9rem; border-bottom: 1px solid var(--soft); border-left: 1px solid var(--soft); }
.plot svg { display: block; width: 100%; height: 100%; }
.plot .top { position: absolute; top: 0; left: .25rem; padding: 0 .25rem; border-radius: .25rem; background: var(--card); color: var(--soft); font-size: .75rem; }
.marks { display: flex; justify-content: space-between; color: var(--soft); font-size: .75rem; }
path.grid { fill: none; stroke: var(--line); stroke-width: 1; vector-effect: non-scaling-stroke; }
path.promise { fill: none; stroke: var(--promise); stroke-width: 1.5; stroke-dasharray: 6 4; vector-effect: non-scaling-stroke; }
.granted { fill: var(--granted); } .bad { fill: var(--critical); }
.f0 { fill: var(--c0); } .f1 { fill: var(--c1); } .f2 { fill: var(--c2); } .f3 { fill: var(--c3); } .f4 { fill: var(--c4); }
.f5 { fill: var(--c5); } .f6 { fill: var(--c6); } .f7 { fill: var(--c7); } .f8 { fill: var(--c8); }
path.stack { stroke: var(--card); stroke-width: 1; vector-effect: non-scaling-stroke; }
.note { margin: .25rem 0 0; color: var(--soft); font-size: .8125rem; }
.legend { display: flex; flex-wrap: wrap; gap: .125rem 1rem; margin: .25rem 0 0; padding: 0; list-style: none; font-size: .8125rem; }
.scroll { overflow-x: auto; margin-bottom: .5rem; } .scroll:focus-visible { outline: 2px solid var(--todo); }
table { min-width: min(100%, 36rem); border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption { padding: .25rem 0; text-align: left; color: var(--soft); }
th, td { padding: .3125rem 1.25rem .3125rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { font-weight: 600; } tbody th { min-width: 7rem; max-width: 20rem; overflow-wrap: anywhere; } .l { max-width: 26rem; }
.l:not(:nth-child(2)) { min-width: 9rem; overflow-wrap: anywhere; }
thead th { color: var(--soft); white-space: nowrap; } .r { text-align: right; white-space: nowrap; }
.bar { min-width: 6rem; } .bar span { display: block; height: .25rem; margin: 0 0 0 auto; border-radius: .125rem; background: var(--c1); }
@media (max-width: 40rem) {
  .list table, .list caption, .list tbody, .list tr, .list th { display: block; }
  .list thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  .list tr { padding: .5rem 0; border-bottom: 1px solid var(--line); }
  .list tr > * { max-width: none; padding: 0; border: 0; text-align: left; white-space: normal; }
  .list td { display: grid; grid-template-columns: 7rem 1fr; } .list td:empty { display: none; }
  .list td::before { content: attr(data-h); color: var(--soft); }
  .list .bar span { grid-column: 2; margin: 0; }
}
.state { font-weight: 600; white-space: nowrap; }
.s1 { color: var(--ok); } .s2, .s6 { color: var(--attention); } .s3 { color: var(--todo); } .s4 { color: var(--soft); font-weight: 400; } .s5 { color: var(--critical); }
.s1::before { content: "\2713\a0"; } .s2::before, .s5::before, .s6::before { content: "!\a0"; } .s3::before { content: "\25cb\a0"; }
details { margin-bottom: .5rem; font-size: .875rem; } summary { color: var(--soft); cursor: pointer; }
footer { margin-top: 1rem; }
@media print { section, figure { break-inside: avoid; } body { max-width: none; } }
$css$
$report$;
COMMENT ON FUNCTION eros.report_style() IS 'internal: how the report looks, by day and by night';

CREATE FUNCTION eros.report() RETURNS text
	-- compiling the plans would take longer than the page
	LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
	day eros.report_sample[] := ARRAY(SELECT eros.report_day());
	since timestamptz := (SELECT i.stats_since FROM eros.database_info() i);
	here text := eros.report_escape(current_database());
BEGIN
	RETURN concat(
		E'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8" />\n',
		E'<meta name="viewport" content="width=device-width, initial-scale=1" />\n',
		E'<meta name="color-scheme" content="light dark" />\n<meta name="referrer" content="no-referrer" />\n',
		E'<meta http-equiv="Content-Security-Policy" content="default-src ''none''; style-src ''unsafe-inline''; img-src data:" />\n',
		-- an empty icon, or the browser asks the server for one
		E'<link rel="icon" href="data:," />\n',
		format(E'<title>EROS in %s</title>\n<style>%s</style>\n</head>\n<body>\n', here, eros.report_style()),
		format(E'<header>\n<h1>EROS in %s</h1>\n<p>%s. Figures since the server''s start, %s ago, where it says nothing else.</p>\n</header>\n<main>\n', here,
			eros.report_escape(format('EROS %s on PostgreSQL %s, %s', (SELECT e.extversion FROM pg_extension e WHERE e.extname = 'eros'),
				current_setting('server_version'), to_char(eros.now(), 'YYYY-MM-DD HH24:MI TZ'))),
			eros.report_escape(eros.show_ms(1000 * extract(epoch FROM clock_timestamp() - since)::double precision))),
		eros.report_health(),
		eros.report_tiles(),
		eros.report_cpu(day),
		eros.report_users(day),
		eros.report_queue(day),
		eros.report_halts(),
		eros.report_cache(day),
		eros.report_handlers(),
		eros.report_checklist(),
		eros.report_prediction(),
		E'</main>\n<footer><p>Made by SELECT eros.report(). The page loads nothing and knows no users.</p></footer>\n</body>\n</html>');
END $$;
COMMENT ON FUNCTION eros.report() IS
	'a page for the browser, to be saved by psql -XAtc "SELECT eros.report()" > eros.html: is all well, CPU per phase against its share and users by phase over the last day, queue, halts, results, handlers by cost and worth, checklist, prediction. In one file of ASCII that loads nothing; without any user''s id';

DO $$
DECLARE
	f regprocedure;
BEGIN
	FOR f IN SELECT p.oid FROM pg_catalog.pg_proc p
		WHERE p.pronamespace = 'eros'::regnamespace AND p.proname ~ '^report(_|$)'
	LOOP
		EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO pg_monitor', f);
	END LOOP;
END $$;

------------------------------------------------------------------------------
-- Privileges
------------------------------------------------------------------------------

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA eros FROM PUBLIC;
GRANT EXECUTE ON FUNCTION eros.user_key(bigint), eros.user_bigint(uuid), eros.now() TO PUBLIC;

CREATE FUNCTION eros.change_rights(role regrole, functions name[], granted boolean) RETURNS void
	LANGUAGE plpgsql STRICT SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	f regprocedure;
BEGIN
	IF NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = role) THEN
		RAISE EXCEPTION 'role % does not exist', role USING ERRCODE = 'undefined_object';
	END IF;
	FOR f IN
		SELECT d.objid FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
		WHERE d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
		  AND d.refclassid = 'pg_extension'::regclass
		  AND d.refobjid = (SELECT e.oid FROM pg_extension e WHERE e.extname = 'eros')
		  AND p.proname = ANY (functions)
	LOOP
		IF granted THEN
			EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', f, role);
		ELSE
			EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM %s', f, role);
		END IF;
	END LOOP;
END $$;
COMMENT ON FUNCTION eros.change_rights(regrole, name[], boolean) IS
	'internal: grants or revokes the right to execute functions of the extension';

CREATE FUNCTION eros.grant_application(role regrole) RETURNS void
	LANGUAGE plpgsql STRICT SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM eros.change_rights(role, '{eros_touch,get,get_many}', true);
	EXECUTE format('GRANT USAGE ON SCHEMA eros TO %s', role);
END $$;
COMMENT ON FUNCTION eros.grant_application(regrole) IS
	'grants what an application needs: eros_touch(), eros.get() and eros.get_many()';

CREATE FUNCTION eros.revoke_application(role regrole) RETURNS void
	LANGUAGE plpgsql STRICT SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM eros.change_rights(role, '{eros_touch,get,get_many}', false);
	EXECUTE format('REVOKE USAGE ON SCHEMA eros FROM %s', role);
END $$;
COMMENT ON FUNCTION eros.revoke_application(regrole) IS
	'takes back what eros.grant_application() granted';

CREATE FUNCTION eros.grant_developer(role regrole) RETURNS void
	LANGUAGE plpgsql STRICT SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM eros.grant_application(role);
	PERFORM eros.change_rights(role,
		'{add_handler,drop_handler,enable_handler,disable_handler,retry,run_now,invalidate}', true);
END $$;
COMMENT ON FUNCTION eros.grant_developer(regrole) IS
	'grants what the owner of handlers needs, the application''s rights included: eros.add_handler() and its like, eros.run_now(), eros.invalidate()';

CREATE FUNCTION eros.revoke_developer(role regrole) RETURNS void
	LANGUAGE plpgsql STRICT SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM eros.change_rights(role,
		'{add_handler,drop_handler,enable_handler,disable_handler,retry,run_now,invalidate}', false);
	PERFORM eros.revoke_application(role);
END $$;
COMMENT ON FUNCTION eros.revoke_developer(regrole) IS
	'takes back what eros.grant_developer() granted, the application''s rights included. Handlers of the role stay, and run as it: see eros.disable_handler() and REASSIGN OWNED';

REVOKE ALL ON FUNCTION eros.change_rights(regrole, name[], boolean), eros.grant_application(regrole),
	eros.revoke_application(regrole), eros.grant_developer(regrole), eros.revoke_developer(regrole) FROM PUBLIC;

GRANT USAGE ON SCHEMA eros TO pg_monitor;
GRANT SELECT ON eros.status, eros.status_phase, eros.status_handler, eros.status_worker,
	eros.status_queue, eros.status_cache, eros.status_halt, eros.status_halt_recent, eros.status_error, eros.phase, eros.handler TO pg_monitor;
GRANT SELECT ON eros.metrics, eros.metric_family TO pg_monitor;
GRANT EXECUTE ON FUNCTION eros.halt_histogram(), eros.metrics_text() TO pg_monitor;
GRANT SELECT ON eros.history_server, eros.history_phase, eros.history_handler, eros.status_latency,
	eros.last_hour_sample, eros.last_hour, eros.last_hour_phase, eros.lately_handler, eros.last_day_handler, eros.status_worth,
	eros.history_part, eros.status_prediction TO pg_monitor;
GRANT EXECUTE ON FUNCTION eros.problems(), eros.note_scrape(), eros.monitor_info(),
	eros.latency_info(), eros.cpu_formula(integer), eros.activity_formula(bigint, double precision, double precision),
	eros.dead_rows(double precision, double precision), eros.job_formula(double precision, double precision, double precision),
	eros.history_formula(bigint, bigint), eros.learn_handlers(timestamptz, timestamptz), eros.learn_phases(timestamptz, timestamptz),
	eros.learn_server(timestamptz, timestamptz), eros.prediction_cut(),
	eros.forecast(bigint, bigint, double precision, double precision, double precision, integer, interval, timestamptz),
	eros.job_wal_bytes(), eros.batch_wal_bytes(),
	eros.check_question(bigint, bigint, double precision, double precision, double precision, integer, interval),
	eros.result_wal_bytes(double precision), eros.checklist(),
	eros.memory_formula(bigint, bigint, double precision, double precision), eros.tracker_formula(bigint),
	eros.drain_formula(double precision[], double precision[], integer, double precision),
	eros.predict(bigint, bigint, double precision, double precision, double precision, integer, interval, timestamptz),
	eros.sample_handlers(timestamptz), eros.sample_phases(timestamptz), eros.sample_server(timestamptz) TO pg_monitor;
GRANT EXECUTE ON FUNCTION eros.database_info(), eros.phase_info(), eros.handler_info(),
	eros.worker_info(), eros.halt_info(), eros.halt_recent_info(), eros.error_info(), eros.library_version(), eros.cpu_cores(), eros.cache_partitions() TO pg_monitor;
GRANT EXECUTE ON FUNCTION eros.top(integer, integer, double precision, boolean), eros.top_head(integer),
	eros.top_phases(integer, double precision, boolean), eros.top_workers(integer), eros.top_queue(integer),
	eros.top_halts(integer), eros.top_rates(double precision), eros.recent_rates(double precision),
	eros.show_number(numeric), eros.show_bytes(numeric), eros.show_ms(double precision), eros.show_interval(interval),
	eros.show_text(text, integer), eros.show_bar(double precision, double precision, double precision, integer, boolean)
	TO pg_monitor;

SELECT pg_catalog.pg_extension_config_dump('eros.phase', '');
SELECT pg_catalog.pg_extension_config_dump('eros.handler', '');
SELECT pg_catalog.pg_extension_config_dump('eros.handler_handler_id_seq', '');

------------------------------------------------------------------------------
-- The processes start when this transaction commits
------------------------------------------------------------------------------

CREATE FUNCTION eros.announce() RETURNS void
	AS 'MODULE_PATHNAME', 'eros_announce' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION eros.announce() IS
	'internal: tells the launcher that this database has the extension, when the transaction commits';
REVOKE ALL ON FUNCTION eros.announce() FROM PUBLIC;
SELECT eros.announce();
