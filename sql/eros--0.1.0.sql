/* eros--0.1.0.sql: one section per station of the flow. */

-- complain if the script is sourced in psql rather than by CREATE EXTENSION
\echo Use "CREATE EXTENSION eros" to load this file. \quit

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
	'stops the time of EROS on the whole server until its restart, so that only eros.advance_clock() moves it, for tests; returns the time. Same rights and errors';

------------------------------------------------------------------------------
-- Touch
------------------------------------------------------------------------------

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
	(3, '60 minutes', 95, 250);

CREATE UNLOGGED TABLE eros.activity (
	user_id uuid PRIMARY KEY,
	last_seen timestamptz NOT NULL,
	phase smallint NOT NULL
);
COMMENT ON TABLE eros.activity IS 'one row per idle user; active users are in shared memory';
COMMENT ON COLUMN eros.activity.user_id IS 'the user''s key: a uuid, or a bigint as eros.user_key() stores it';
COMMENT ON COLUMN eros.activity.last_seen IS 'his last touch';
COMMENT ON COLUMN eros.activity.phase IS 'the phase that he has reached; 0: active, but the shared memory had no room for him';
CREATE INDEX activity_phase_idx ON eros.activity (phase, last_seen);

CREATE UNLOGGED TABLE eros.spilled_touch (
	user_id uuid NOT NULL,
	last_seen timestamptz NOT NULL
);
COMMENT ON TABLE eros.spilled_touch IS
	'touches that found the shared memory full; the next sweep takes them over into eros.activity. Without a key, so that no touch waits for another';
COMMENT ON COLUMN eros.spilled_touch.user_id IS 'the user''s key';
COMMENT ON COLUMN eros.spilled_touch.last_seen IS 'when he was touched';

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
	error_at timestamptz
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
COMMENT ON COLUMN eros.handler.error IS 'why it cannot be called at all, NULL when it can';
COMMENT ON COLUMN eros.handler.error_at IS 'since when';

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
);
COMMENT ON TABLE eros.job IS 'what is to be computed: one job per user and handler; a finished job is deleted';
COMMENT ON COLUMN eros.job.user_id IS 'the user''s key';
COMMENT ON COLUMN eros.job.handler_id IS 'the handler to call';
COMMENT ON COLUMN eros.job.phase IS 'the phase whose CPU share pays for it';
COMMENT ON COLUMN eros.job.attempts IS 'how often it has failed';
COMMENT ON COLUMN eros.job.due_at IS 'when it may run: at once, or after a failure the next try';
COMMENT ON COLUMN eros.job.status IS 'pending or failed';
COMMENT ON COLUMN eros.job.last_error IS 'message of the last failure';
CREATE INDEX job_pending_idx ON eros.job (phase, handler_id, due_at) WHERE status = 'pending';

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
CREATE INDEX cache_expires_at_idx ON eros.cache (expires_at);

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

CREATE FUNCTION eros.account_cache_bytes(partition regclass, bytes bigint) RETURNS void
	AS 'MODULE_PATHNAME', 'eros_account_cache_bytes' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION eros.account_cache_bytes(regclass, bigint) IS
	'internal: adds bytes (or takes them off) to a partition''s account when the transaction commits';

CREATE FUNCTION eros.close_partition(bucket smallint, upper timestamptz) RETURNS void
	AS 'MODULE_PATHNAME', 'eros_close_partition' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION eros.close_partition(smallint, timestamptz) IS
	'internal: counts the results of a partition that is about to be dropped and were never read';

------------------------------------------------------------------------------
-- Maintenance: by pg_cron where there is one, else by the scheduler
------------------------------------------------------------------------------

CREATE FUNCTION eros.create_partitions() RETURNS integer
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO' SET timezone = 'UTC' AS $$
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
	PERFORM eros.account_cache_bytes(partition, -bytes);
	EXECUTE format('ALTER EXTENSION eros DROP TABLE %s', partition);
	EXECUTE format('DROP TABLE %s', partition);
	PERFORM eros.close_partition(bucket, upper);
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

CREATE FUNCTION eros.evict() RETURNS bigint
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	-- a little below the limit, so as not to be back at once
	excess bigint;
	p record;
	gone_entries bigint;
	gone_bytes bigint;
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
		WHILE excess > 0 LOOP
			EXECUTE format($sql$
				WITH old AS MATERIALIZED (
					SELECT c.ctid, eros.entry_bytes(c.value) AS bytes FROM %1$s c ORDER BY c.expires_at LIMIT 1000
				), enough AS (
					SELECT o.ctid, sum(o.bytes) OVER (ROWS UNBOUNDED PRECEDING) - o.bytes AS before FROM old o
				), gone AS (
					DELETE FROM %1$s c WHERE c.ctid = ANY (ARRAY(SELECT e.ctid FROM enough e WHERE e.before < %2$s))
					RETURNING eros.entry_bytes(c.value) AS bytes
				)
				SELECT count(*) AS entries, coalesce(sum(bytes), 0)::bigint AS bytes FROM gone$sql$,
				p.partition, excess) INTO gone_entries, gone_bytes;
			EXIT WHEN gone_entries = 0;
			PERFORM eros.account_cache_bytes(p.partition, -gone_bytes);
			excess := excess - gone_bytes;
			evicted := evicted + gone_entries;
		END LOOP;
	END LOOP;
	RETURN evicted;
END $$;
COMMENT ON FUNCTION eros.evict() IS
	'when the cache is above eros.cache_limit, deletes what would expire first until it is below, or drops the partition that expires first and returns, to be called again; returns how many entries (a dropped partition counts as one)';

CREATE FUNCTION eros.entry_bytes(value jsonb) RETURNS bigint
	LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
	-- tuple header and line pointer 28, fixed columns 40, two index entries 44
	AS 'SELECT pg_column_size(value)::bigint + 112';
COMMENT ON FUNCTION eros.entry_bytes(jsonb) IS
	'what a cache entry takes on disk, in bytes: the stored value and 112 bytes of row and index entries';

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
	PERFORM eros.maintenance_done();
	RETURN cleaned;
END $$;
COMMENT ON FUNCTION eros.clean_up() IS
	'deletes the users who have been idle for longer than eros.max_idle, with their jobs and results; returns how many users';

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
			RETURNING c.tableoid, eros.entry_bytes(c.value) AS bytes)
		SELECT c.tableoid, sum(c.bytes)::bigint AS bytes FROM c GROUP BY 1
	LOOP
		PERFORM eros.account_cache_bytes(gone.tableoid, -gone.bytes);
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

CREATE FUNCTION eros.database_info(
	OUT scheduler_pid integer, OUT held boolean, OUT no_worker_slot boolean, OUT by_pg_cron boolean,
	OUT workers integer, OUT active_users bigint, OUT touches_spilled bigint, OUT touches_lost bigint,
	OUT users_spilled bigint, OUT returns bigint, OUT halts bigint, OUT scheduler_cpu_ms double precision,
	OUT last_sweep timestamptz, OUT last_maintenance timestamptz, OUT cache_bytes bigint,
	OUT tracker_users bigint, OUT tracker_capacity bigint, OUT tracker_bytes bigint,
	OUT tracker_limit_bytes bigint, OUT launcher_pid integer, OUT clock_offset interval,
	OUT stats_since timestamptz, OUT evicted bigint, OUT paused boolean, OUT gave_way bigint) RETURNS record
	AS 'MODULE_PATHNAME', 'eros_database_info' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION eros.database_info() IS 'internal: what shared memory knows of this database; see eros.status';

CREATE FUNCTION eros.phase_info(
	OUT phase smallint, OUT users bigint, OUT transitions bigint, OUT batches bigint, OUT users_done bigint,
	OUT cpu_granted_ms double precision, OUT cpu_used_ms double precision, OUT cpu_yielded_ms double precision,
	OUT throttled_ms double precision)
	RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'eros_phase_info' LANGUAGE C VOLATILE ROWS 3;
COMMENT ON FUNCTION eros.phase_info() IS 'internal: the counters of the phases; see eros.status_phase';

CREATE FUNCTION eros.handler_info(
	OUT handler_id integer, OUT pending bigint, OUT failed bigint, OUT batches bigint, OUT users_done bigint,
	OUT batches_failed bigint, OUT batches_halted bigint, OUT cpu_used_ms double precision,
	OUT cpu_halted_ms double precision, OUT cost_ms double precision, OUT stored bigint, OUT hits bigint,
	OUT misses bigint, OUT unread bigint, OUT ended bigint) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'eros_handler_info' LANGUAGE C VOLATILE ROWS 10;
COMMENT ON FUNCTION eros.handler_info() IS 'internal: the counters of the handlers; see eros.status_handler';

CREATE FUNCTION eros.worker_info(
	OUT worker integer, OUT pid integer, OUT activity text, OUT handler_id integer, OUT phase smallint,
	OUT batch_users integer, OUT batch_start timestamptz, OUT started timestamptz, OUT batches bigint,
	OUT users_done bigint, OUT cpu_used_ms double precision, OUT grant_percent double precision,
	OUT waited_percent double precision) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'eros_worker_info' LANGUAGE C VOLATILE ROWS 5;
COMMENT ON FUNCTION eros.worker_info() IS 'internal: the workers of this database; see eros.status_worker';

CREATE FUNCTION eros.halt_info(
	OUT halts bigint, OUT p50_ms double precision, OUT p99_ms double precision, OUT max_ms double precision,
	OUT forced bigint, OUT sum_ms double precision) RETURNS record
	AS 'MODULE_PATHNAME', 'eros_halt_info' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION eros.halt_info() IS 'internal: the latencies of halts; see eros.status_halt';

CREATE FUNCTION eros.halt_histogram(OUT upper_ms double precision, OUT halts bigint) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'eros_halt_histogram' LANGUAGE C VOLATILE ROWS 19;
COMMENT ON FUNCTION eros.halt_histogram() IS
	'how many halts by returning users took at most upper_ms ms, since the server''s start; bounds from 0.064 ms to 8388.608 ms, doubling, and at last NULL: all of them';

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
		   h.error, h.error_at
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
COMMENT ON COLUMN eros.status_handler.batches_failed IS 'calls that raised an error or timed out';
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

CREATE VIEW eros.status_worker AS
	SELECT i.worker, i.pid, i.activity, h.name AS handler, i.phase, i.batch_users,
		   CASE WHEN i.batch_start IS NOT NULL THEN clock_timestamp() - i.batch_start END AS batch_age,
		   i.started, i.batches, i.users_done, i.cpu_used_ms, i.grant_percent, i.waited_percent
	FROM eros.worker_info() i LEFT JOIN eros.handler h USING (handler_id)
	ORDER BY i.worker;
COMMENT ON VIEW eros.status_worker IS 'what each worker of this database does now';
COMMENT ON COLUMN eros.status_worker.worker IS 'its number, from 1';
COMMENT ON COLUMN eros.status_worker.pid IS 'its process, as in pg_stat_activity';
COMMENT ON COLUMN eros.status_worker.activity IS 'starting, idle, claiming, computing, storing, pausing (until the share allows the next batch) or pausing in call (until it allows more of this one)';
COMMENT ON COLUMN eros.status_worker.handler IS 'the handler that it calls now';
COMMENT ON COLUMN eros.status_worker.phase IS 'the phase that pays for it';
COMMENT ON COLUMN eros.status_worker.batch_users IS 'users in the batch';
COMMENT ON COLUMN eros.status_worker.batch_age IS 'time since the handler was called, which is also the age of the snapshot that the call holds';
COMMENT ON COLUMN eros.status_worker.started IS 'when the worker was started';
COMMENT ON COLUMN eros.status_worker.batches IS 'batches since then';
COMMENT ON COLUMN eros.status_worker.users_done IS 'users whose job was finished since then';
COMMENT ON COLUMN eros.status_worker.cpu_used_ms IS 'CPU time of its batches since then, in ms';
COMMENT ON COLUMN eros.status_worker.grant_percent IS 'part of the phases'' shares that it takes, in percent: less than 100 while the machine is contended';
COMMENT ON COLUMN eros.status_worker.waited_percent IS 'part of its running time for which it last had to wait for a CPU, in percent, by the kernel''s schedstat';

CREATE VIEW eros.status_halt AS
	SELECT i.halts, i.p50_ms, i.p99_ms, i.max_ms, i.forced FROM eros.halt_info() i;
COMMENT ON VIEW eros.status_halt IS 'how fast returning users stop the work on them, from the touch to the roll-back finished, since the server''s start';
COMMENT ON COLUMN eros.status_halt.halts IS 'batches halted by a returning user';
COMMENT ON COLUMN eros.status_halt.p50_ms IS 'median latency, in ms; the upper bound of its class, classes being a fourth root of two apart';
COMMENT ON COLUMN eros.status_halt.p99_ms IS '99th percentile of the latency, in ms, likewise';
COMMENT ON COLUMN eros.status_halt.max_ms IS 'longest latency, in ms';
COMMENT ON COLUMN eros.status_halt.forced IS 'workers that were terminated because they did not yield within eros.halt_timeout';

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

CREATE VIEW eros.status AS
	SELECT CASE WHEN h.message IS NULL THEN 'ok' ELSE h.message END AS status,
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
	CROSS JOIN (SELECT coalesce(sum(jobs_pending), 0)::bigint AS jobs_pending,
					   coalesce(sum(jobs_failed), 0)::bigint AS jobs_failed,
					   count(*) FILTER (WHERE error IS NOT NULL) AS broken
				FROM eros.status_handler) q
	CROSS JOIN LATERAL (SELECT CASE
			WHEN NOT current_setting('eros.enabled')::boolean
				THEN 'switched off: eros.enabled is off'
			WHEN i.launcher_pid IS NULL
				THEN 'the launcher does not run: see the server log; in recovery it starts after promotion'
			WHEN i.paused
				THEN 'paused: eros.resume() lets the work go on'
			WHEN i.held
				THEN 'kept out while a command works on this database or on the extension'
			WHEN i.no_worker_slot
				THEN 'no free worker slot: raise max_worker_processes or lower eros.workers'
			WHEN i.scheduler_pid IS NULL
				THEN 'the scheduler of this database is not running: it is started within seconds'
			WHEN i.touches_lost > 0
				THEN format('%s touches were lost where nothing can be written: raise eros.tracker_memory', i.touches_lost)
			WHEN i.users_spilled > 0
				THEN 'active users did not fit into memory and were moved to the table: raise eros.tracker_memory'
			WHEN q.broken > 0
				THEN format('%s handlers cannot be called: see error in eros.status_handler', q.broken)
			WHEN q.jobs_failed > 0
				THEN format('%s jobs have failed: see last_error in eros.job, then eros.retry()', q.jobs_failed)
		END AS message) h;
COMMENT ON VIEW eros.status IS 'one row: is all well in this database, and the figures at a glance, since the server''s start';
COMMENT ON COLUMN eros.status.status IS '''ok'', or what is wrong and what to do';
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
COMMENT ON COLUMN eros.status.touches_lost IS 'touches that could not, in a read-only transaction, on a standby or in a parallel query';
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
		('database', 'eros_database_scheduler_up', 'gauge', '{}', '1 while the scheduler of the database runs'),
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
		('handler', 'eros_handler_batches_failed_total', 'counter', '{handler,phase}', 'Calls that raised an error or timed out'),
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

		('halts', 'eros_halts_total', 'counter', '{reason}', 'Batches interrupted, by why: return, lock (somebody waited for one) or pause'),

		('halt', 'eros_halt_latency_seconds', 'histogram', '{}', 'Time from the touch of a returning user to the roll-back finished'),
		('halt', 'eros_halt_forced_total', 'counter', '{}', 'Workers terminated because they did not yield within eros.halt_timeout')
	) f(subject, name, type, labels, help);
COMMENT ON VIEW eros.metric_family IS 'the names of eros.metrics: what there is to be measured';
COMMENT ON COLUMN eros.metric_family.subject IS 'what it is about; all metrics of a subject have the same labels';
COMMENT ON COLUMN eros.metric_family.name IS 'its name in Prometheus, with the unit: seconds, bytes, ratio (0 to 1) or what is counted; eros_server_ and eros_tracker_ are of the whole server';
COMMENT ON COLUMN eros.metric_family.type IS 'counter (ends with _total, begins with zero at the server''s start), gauge or histogram';
COMMENT ON COLUMN eros.metric_family.labels IS 'the names of its labels; datname, the database, is always there besides';
COMMENT ON COLUMN eros.metric_family.help IS 'what it is';

CREATE VIEW eros.metrics AS
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
		CROSS JOIN (SELECT s.status, s.idle_users FROM eros.status s) s
		CROSS JOIN LATERAL (VALUES
			('healthy', (s.status = 'ok')::integer),
			('scheduler_up', (i.scheduler_pid IS NOT NULL)::integer),
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
			('lock', i.gave_way),
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
	) s
	JOIN eros.metric_family f ON f.subject = s.subject AND f.name = s.family
	WHERE s.value IS NOT NULL;
COMMENT ON VIEW eros.metrics IS 'all figures of this database and of the server for Prometheus, one row for each sample';
COMMENT ON COLUMN eros.metrics.subject IS 'what it is about; a query for one subject costs no more than that';
COMMENT ON COLUMN eros.metrics.family IS 'the metric, as in eros.metric_family';
COMMENT ON COLUMN eros.metrics.name IS 'the sample''s name: the metric''s, with _bucket, _sum or _count for a histogram';
COMMENT ON COLUMN eros.metrics.type IS 'counter, gauge or histogram';
COMMENT ON COLUMN eros.metrics.help IS 'what it is';
COMMENT ON COLUMN eros.metrics.labels IS 'the labels, an object of strings: datname, and those of eros.metric_family';
COMMENT ON COLUMN eros.metrics.value IS 'the value, in the unit of the name';

CREATE FUNCTION eros.metrics_text() RETURNS text
	LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
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
-- Privileges
------------------------------------------------------------------------------

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA eros FROM PUBLIC;
GRANT EXECUTE ON FUNCTION eros.user_key(bigint), eros.user_bigint(uuid), eros.now() TO PUBLIC;

CREATE FUNCTION eros.grant_application(role regrole) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	f regprocedure;
BEGIN
	EXECUTE format('GRANT USAGE ON SCHEMA eros TO %s', role);
	FOR f IN
		SELECT d.objid FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
		WHERE d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
		  AND d.refclassid = 'pg_extension'::regclass
		  AND d.refobjid = (SELECT e.oid FROM pg_extension e WHERE e.extname = 'eros')
		  AND p.proname IN ('eros_touch', 'get', 'get_many')
	LOOP
		EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', f, role);
	END LOOP;
END $$;
COMMENT ON FUNCTION eros.grant_application(regrole) IS
	'grants what an application needs: eros_touch(), eros.get() and eros.get_many()';

CREATE FUNCTION eros.grant_developer(role regrole) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	f regprocedure;
BEGIN
	PERFORM eros.grant_application(role);
	FOR f IN
		SELECT p.oid FROM pg_proc p
		WHERE p.pronamespace = 'eros'::regnamespace
		  AND p.proname IN ('add_handler', 'drop_handler', 'enable_handler', 'disable_handler',
							'retry', 'run_now', 'invalidate')
	LOOP
		EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', f, role);
	END LOOP;
END $$;
COMMENT ON FUNCTION eros.grant_developer(regrole) IS
	'grants what the owner of handlers needs, the application''s rights included: eros.add_handler() and its like, eros.run_now(), eros.invalidate()';

REVOKE ALL ON FUNCTION eros.grant_application(regrole), eros.grant_developer(regrole) FROM PUBLIC;

GRANT USAGE ON SCHEMA eros TO pg_monitor;
GRANT SELECT ON eros.status, eros.status_phase, eros.status_handler, eros.status_worker,
	eros.status_queue, eros.status_cache, eros.status_halt, eros.phase, eros.handler TO pg_monitor;
GRANT SELECT ON eros.metrics, eros.metric_family TO pg_monitor;
GRANT EXECUTE ON FUNCTION eros.halt_histogram(), eros.metrics_text() TO pg_monitor;
GRANT EXECUTE ON FUNCTION eros.database_info(), eros.phase_info(), eros.handler_info(),
	eros.worker_info(), eros.halt_info(), eros.cpu_cores(), eros.cache_partitions() TO pg_monitor;

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
