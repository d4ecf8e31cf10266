# Faults that are nobody's crash: settings of roles and databases, locks, deadlocks, a full disk, a log
# that must not fill.  Nothing is lost, the status tells, the same message is logged once.

use strict;
use warnings;

use ErosTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $nospace = PostgreSQL::Test::Utils::tempdir . '/nospace';

# for every start of the server
$ENV{LD_PRELOAD} = join ' ', grep { defined } "$FindBin::RealBin/../module/eros_nospace.so", $ENV{LD_PRELOAD};
$ENV{EROS_NOSPACE} = $nospace;
my $node = eros_node('main', "eros.retry_delay = 100ms\n");
my $pending = q{SELECT count(*) FROM eros.job};

# Counts the lines of the log that match.
sub logged
{
	my ($pattern) = @_;
	my @lines = slurp_file($node->logfile) =~ /$pattern/g;
	return scalar @lines;
}

# Tests that users have got their results.
sub served
{
	my ($first, $last, $name) = @_;

	return polls_to($node, 'postgres',
		"SELECT count(*) FROM eros.get_many('gated', ARRAY(SELECT generate_series($first\::bigint, $last)))", $name, $last - $first + 1);
}

create_eros($node, 'postgres');
soon_idle($node, 'postgres', 5);
gated_handler($node, 'postgres');

# whatever the database and the role have set
my @settings = (
	'statement_timeout = 1', 'lock_timeout = 1', 'idle_in_transaction_session_timeout = 1', 'idle_session_timeout = 1',
	'default_transaction_read_only = on', q{default_transaction_isolation = 'serializable'}, 'default_transaction_deferrable = on',
	'exit_on_error = on', q{search_path = 'app'}, q{timezone = 'Asia/Kolkata'}, q{datestyle = 'German'},
	q{session_replication_role = 'replica'});
$node->safe_psql('template1', join ';', map { ("ALTER DATABASE postgres SET $_", "ALTER ROLE postgres SET $_") } @settings);
$node->restart;
$ENV{PGOPTIONS} = '-c search_path=public -c statement_timeout=0 -c lock_timeout=0 -c default_transaction_read_only=off -c default_transaction_isolation=read\ committed -c default_transaction_deferrable=off -c exit_on_error=off -c session_replication_role=origin -c idle_session_timeout=0 -c idle_in_transaction_session_timeout=0';
polls_to($node, 'postgres', running(), 'EROS runs with the settings of a hostile role and database');
$node->safe_psql('postgres', 'SELECT eros_touch(u) FROM generate_series(1, 20) u');
served(1, 20, 'and serves');
is(value($node, 'postgres', 'SELECT count(*) FROM eros.status_error'), 0, 'without an error');
$node->safe_psql('template1', 'SET search_path = public; ALTER DATABASE postgres RESET ALL; ALTER ROLE postgres RESET ALL');
delete $ENV{PGOPTIONS};
$node->restart;
polls_to($node, 'postgres', running(), 'EROS runs without them');

# a session that keeps a job's row, a user's row, a whole table
my $session = open_session($node, 'postgres');
open_gate($node, 'postgres', 0);
$node->safe_psql('postgres', 'SELECT eros_touch(u) FROM generate_series(21, 30) u');
polls_to($node, 'postgres', $pending, 'ten jobs are pending', 10);
in_session($session, 'BEGIN');
in_session($session, 'LOCK eros.job, eros.activity, eros.cache IN SHARE MODE');
open_gate($node, 'postgres', 1);
$node->safe_psql('postgres', 'SELECT eros_touch(u) FROM generate_series(31, 40) u');
polls_to($node, 'postgres', q{SELECT max(count) > 0 FROM eros.status_error WHERE process = 'scheduler' AND sqlstate = '55P03'},
	'a lock that the scheduler does not get is in eros.status_error');
in_session($session, 'COMMIT');
served(21, 40, 'all are served when the lock is gone');
is(logged(qr/eros scheduler ERROR:  canceling statement due to lock timeout/), 1, 'it was logged once');

# deadlocks of the application with a handler: the application's transaction succeeds
$node->safe_psql(
	'postgres', q{
	CREATE TABLE app.row (id integer PRIMARY KEY, n integer DEFAULT 0);
	INSERT INTO app.row VALUES (1), (2);
	CREATE FUNCTION app.locks(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE plpgsql AS $$
	BEGIN
		UPDATE app.row SET n = n + 1 WHERE id = 1;
		PERFORM pg_sleep(0.3);
		UPDATE app.row SET n = n + 1 WHERE id = 2;
		RETURN QUERY SELECT u, to_jsonb(u) FROM unnest(user_ids) u;
	END $$;
	SELECT eros.disable_handler('gated'), eros.add_handler('locks', 'app.locks', phase => 1)});
in_session($session, 'BEGIN');
in_session($session, 'UPDATE app.row SET n = n WHERE id = 2');
$node->safe_psql('postgres', 'SELECT eros_touch(41)');
polls_to($node, 'postgres', q{SELECT count(*) > 0 FROM pg_locks l JOIN pg_stat_activity USING (pid) WHERE backend_type = 'eros worker' AND NOT l.granted},
	'the handler waits for the application');
is(in_session($session, 'UPDATE app.row SET n = n WHERE id = 1'), '', 'the application goes on: EROS gives way');
in_session($session, 'COMMIT');
polls_to($node, 'postgres', q{SELECT eros.get('locks', 41)}, 'and the handler is called again', 41);
is(value($node, 'postgres', q{SELECT coalesce(max(attempts), 0) FROM eros.job}), 0, 'no attempt was counted');

# errors of the handler's that come again and again: retried, counted, logged once
$node->safe_psql(
	'postgres', q{
	CREATE TABLE app.fails AS SELECT '40001' AS sqlstate;
	CREATE FUNCTION app.fails(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE plpgsql AS $$
	DECLARE
		code text := (SELECT f.sqlstate FROM app.fails f);
	BEGIN
		IF code <> '' THEN
			RAISE 'could not serialize access, or so' USING ERRCODE = code;
		END IF;
		RETURN QUERY SELECT u, to_jsonb(u) FROM unnest(user_ids) u;
	END $$;
	SELECT eros.disable_handler('locks'), eros.add_handler('fails', 'app.fails', phase => 1, max_attempts => 100)});
$node->safe_psql('postgres', 'SELECT eros_touch(u) FROM generate_series(51, 60) u');
polls_to($node, 'postgres', q{SELECT count > 20 FROM eros.status_error WHERE handler = 'fails' AND sqlstate = '40001'}, 'a serialization failure is counted each time');
cmp_ok(logged(qr/handler "fails" failed: could not serialize/), '<=', 2, 'and logged once a minute');
polls_to($node, 'postgres', q{SELECT count(*) FROM eros.job WHERE status = 'pending'}, 'no job is lost', 51);
$node->safe_psql('postgres', q{UPDATE app.fails SET sqlstate = ''; UPDATE eros.job SET due_at = eros.now(); SELECT eros.disable_handler('fails'), eros.enable_handler('fails')});
polls_to($node, 'postgres', $pending, 'when it succeeds, all are served', 0);

# a full disk in the middle of storing
$node->safe_psql(
	'postgres', q{
	CREATE FUNCTION app.large(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE sql AS $$
		SELECT u, to_jsonb((SELECT string_agg(md5(random()::text || n), '') FROM generate_series(1, 600) n)) FROM unnest(user_ids) u
	$$;
	SELECT eros.disable_handler('fails'), eros.add_handler('large', 'app.large', phase => 1)});
$node->safe_psql('postgres', 'SELECT eros_touch(u) FROM generate_series(100, 140) u');
my $stored = q{SELECT count(*) FROM eros.get_many('large', ARRAY(SELECT generate_series(100::bigint, 140)))};
polls_to($node, 'postgres', $stored, 'forty have large results', 41);
reload_with($node, 'eros.workers' => 0);
polls_to($node, 'postgres', 'SELECT workers FROM eros.status', 'no worker runs', 0);
$node->safe_psql('postgres', 'SELECT eros_touch(u) FROM generate_series(200, 220) u');
polls_to($node, 'postgres', $pending, 'more jobs are pending', 21);
append_to_file($nospace, "full\n");
$node->append_conf('postgresql.auto.conf', "eros.workers = 1\n");
$node->reload;
polls_to($node, 'postgres', q{SELECT max(count) >= 3 FROM eros.status_error WHERE handler = 'large' AND sqlstate = '53100'},
	'the full disk is in eros.status_error, and it is tried again');
is(value($node, 'postgres', q{SELECT count(*), max(attempts) FROM eros.job}), '21|0', 'all jobs are pending, no attempt is counted');
is(value($node, 'postgres', $stored), 41, 'what was stored can be read');
like(value($node, 'postgres', q{SELECT message FROM eros.problems() WHERE problem = 'errors'}), qr/"worker: could not extend file/,
	'the status says so: it is not the handler that fails');
$node->safe_psql('postgres', 'SELECT eros_touch(ARRAY[300, 301]::bigint[])');
cmp_ok(logged(qr/a batch of handler "large" could not be claimed or stored: could not extend/), '<=', 2, 'the log does not fill');
unlink $nospace;
polls_to($node, 'postgres', q{SELECT count(*) FROM eros.get_many('large', ARRAY(SELECT generate_series(200::bigint, 220)))}, 'when there is space, all is stored', 21);
polls_to($node, 'postgres', $pending, 'no job is left', 0);
polls_to($node, 'postgres', q{SELECT count(*) FROM eros.get_many('large', ARRAY[300, 301]::bigint[])}, 'who came meanwhile is served, too', 2);
is(value($node, 'postgres', q{SELECT string_agg(problem, ' ') FROM eros.problems()}), 'errors', 'all is well but for the errors that there were');
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal/, 'nothing crashed');
close_session($session);
$node->stop;
done_testing();
