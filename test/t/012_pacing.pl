# A long call is paced inside, wherever it spends its time; nothing of how that is done shows.

use strict;
use warnings;

use ErosTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = eros_node('main', "eros.quantum = '10ms'\n");

create_eros($node, 'postgres');
$node->safe_psql(
	'postgres', q{
	CREATE SCHEMA app;
	CREATE TABLE app.big AS SELECT g AS x, md5(g::text) AS t FROM generate_series(1, 200000) g;
	UPDATE eros.phase SET cpu_percent = 2, batch_size = 1,
		idle_after = CASE phase WHEN 1 THEN interval '50 ms' ELSE phase * interval '1 day' END});

my %shapes = (
	'a loop in PL/pgSQL' => [ 'plpgsql',
		q{DECLARE n bigint := 0; BEGIN LOOP n := n + 1; END LOOP; END} ],
	'a scan that filters everything away' => [ 'sql',
		q{SELECT count(b.x), NULL::jsonb FROM app.big a, app.big b WHERE a.x + b.x = -1} ],
	'an aggregate that sorts inside' => [ 'sql',
		q{SELECT count(DISTINCT a.t || g), NULL::jsonb FROM app.big a, generate_series(1, 1000) g} ],
	'a sort' => [ 'sql',
		q{SELECT max(s.n), NULL::jsonb FROM (SELECT row_number() OVER (ORDER BY a.t || g) AS n
		  FROM app.big a, generate_series(1, 1000) g) s} ],
	'a set-returning function' => [ 'sql',
		q{SELECT count(*), NULL::jsonb FROM generate_series(1, 1000000000000)} ]);

# True when a worker is in a call of its handler, of which it computes but a small part of the time.
sub in_call
{
	return q{SELECT count(*) = 1 FROM eros.status_worker WHERE activity IN ('computing', 'pausing in call')};
}

# A handler at a time is called for its own user, pauses inside of the call, and is halted.
my $user = 0;
for my $shape (sort keys %shapes)
{
	my ($language, $body) = @{ $shapes{$shape} };

	$user++;
	$node->safe_psql(
		'postgres', qq{
		CREATE FUNCTION app.handler_$user(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
			LANGUAGE $language AS \$\$ $body \$\$;
		SELECT eros.add_handler('handler', 'app.handler_$user', phase => 1, timeout => '1 hour',
			replace => true);
		SELECT eros_touch($user)});
	polls_to($node, 'postgres', in_call(), "$shape is computed");
	polls_to($node, 'postgres',
		q{SELECT count(*) = 1 FROM eros.status_worker WHERE activity = 'pausing in call' AND batch_users = 1},
		"$shape pauses inside of the call");
	polls_to($node, 'postgres', 'SELECT debt_ms > 0 FROM eros.status_phase WHERE phase = 1', "$shape has used more than its share, which is owed");
	my $used = value($node, 'postgres', 'SELECT max(cpu_used_ms) FROM eros.status_worker');
	polls_to($node, 'postgres', "SELECT max(cpu_used_ms) > $used FROM eros.status_worker", "$shape goes on");
	$node->safe_psql('postgres', q{SELECT eros.disable_handler('handler'), eros.pause()});
	polls_to($node, 'postgres', 'SELECT count(*) = 0 FROM eros.status_worker', "$shape is stopped");
	$node->safe_psql('postgres', q{DELETE FROM eros.job; SELECT eros.resume()});
}
unlike(slurp_file($node->logfile), qr/memory contexts|level: \d|Grand total/,
	'the borrowed report does not reach the log');

# no parallel worker computes below a handler, whatever it sets
$user++;
$node->safe_psql(
	'postgres', qq{
	ALTER TABLE app.big SET (parallel_workers = 2);
	CREATE FUNCTION app.parallel(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE sql
		SET max_parallel_workers_per_gather = 2 SET parallel_setup_cost = 0 SET parallel_tuple_cost = 0
		SET min_parallel_table_scan_size = 0
		AS \$\$ SELECT count(*), NULL::jsonb FROM app.big a, generate_series(1, 20000) g WHERE md5(a.t || g) = '' \$\$;
	SELECT eros.enable_handler('handler'), eros.add_handler('handler', 'app.parallel', phase => 1,
		timeout => '1 hour', replace => true);
	SELECT eros_touch($user)});
like($node->safe_psql('postgres', q{
		SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
		SET min_parallel_table_scan_size = 0;
		EXPLAIN SELECT count(*) FROM app.big a, generate_series(1, 20000) g WHERE md5(a.t || g) = ''}),
	qr/Workers Planned/, 'elsewhere the query is planned for parallel workers');
polls_to($node, 'postgres',
	q{SELECT count(*) = 1 FROM eros.status_worker WHERE activity = 'pausing in call'},
	'the query runs in the worker');
is(value($node, 'postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'parallel worker'}),
	0, '... alone');
$node->safe_psql('postgres', q{SELECT eros.disable_handler('handler'), eros.pause()});
polls_to($node, 'postgres', 'SELECT count(*) = 0 FROM eros.status_worker', 'it is stopped');
$node->safe_psql('postgres', q{DELETE FROM eros.job; SELECT eros.resume()});

# nor builds an index
$user++;
$node->safe_psql(
	'postgres', qq{
	CREATE FUNCTION app.indexes(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE plpgsql
		SET max_parallel_maintenance_workers = 2 SET min_parallel_table_scan_size = 0 SET log_min_messages = debug1
		AS \$\$ BEGIN CREATE INDEX by_handler ON app.big (t); RETURN QUERY SELECT u, '1'::jsonb FROM unnest(user_ids) u; END \$\$;
	SELECT eros.enable_handler('handler'), eros.add_handler('handler', 'app.indexes', phase => 1,
		timeout => '1 hour', replace => true);
	SELECT eros_touch($user)});
polls_to($node, 'postgres', q{SELECT count(*) = 1 FROM pg_class WHERE relname = 'by_handler'}, 'a handler builds an index');
like(slurp_file($node->logfile), qr/building index "by_handler" on table "big" serially/, '... alone');
$node->safe_psql('postgres', q{SET max_parallel_maintenance_workers = 2; SET min_parallel_table_scan_size = 0; SET log_min_messages = debug1;
	CREATE INDEX by_session ON app.big (t)});
like(slurp_file($node->logfile), qr/building index "by_session" on table "big" with request for/, 'elsewhere parallel workers are asked for');
$node->safe_psql('postgres', q{SELECT eros.disable_handler('handler'), eros.pause()});
polls_to($node, 'postgres', 'SELECT count(*) = 0 FROM eros.status_worker', 'it is stopped');
$node->safe_psql('postgres', q{DELETE FROM eros.job; SELECT eros.resume();
	SELECT eros.add_handler('handler', 'app.parallel', phase => 1, timeout => '1 hour', replace => true)});

# a genuine request is served while a call is paced
$node->safe_psql('postgres', q{SELECT eros.enable_handler('handler'), eros_touch(1000)});
polls_to($node, 'postgres', in_call(), 'the handler is called again');
my $served = 0;
for (1 .. 600)
{
	$node->safe_psql('postgres', 'SELECT pg_log_backend_memory_contexts(pid), pg_sleep(0.05) FROM eros.status_worker');
	$served = slurp_file($node->logfile) =~ /logging memory contexts of PID/;
	last if $served;
}
ok($served, 'a genuine request is served');

# a call that pauses holds a snapshot, for eros.max_snapshot_age at most
$node->safe_psql('postgres', q{SELECT eros.pause()});
polls_to($node, 'postgres', 'SELECT count(*) = 0 FROM eros.status_worker', 'that call is stopped');
reload_with($node, 'eros.max_snapshot_age' => '2s');
$node->safe_psql('postgres', q{
	DELETE FROM eros.job WHERE eros.user_bigint(user_id) <> 1000;
	SELECT eros.add_handler('handler', 'app.handler_1', phase => 1, timeout => '1 hour', max_attempts => 1,
		replace => true);
	SELECT eros.resume()});
polls_to($node, 'postgres',
	q{SELECT count(*) = 1 FROM eros.status_worker w JOIN pg_stat_activity a USING (pid)
	  WHERE w.activity = 'pausing in call' AND a.backend_xmin IS NOT NULL
	    AND w.snapshot_age > interval '1 s' AND w.snapshot_age >= w.batch_age},
	'the age of the snapshot is seen while the call pauses');
polls_to($node, 'postgres',
	q{SELECT count(*) > 0 FROM eros.job
	  WHERE status = 'failed' AND last_error = 'handler "handler" was cancelled after 2000 ms'},
	'the call is cancelled in its pause');
polls_to($node, 'postgres',
	q{SELECT count(*) = 1 FROM eros.status_worker WHERE snapshot_age IS NULL AND activity IN ('pausing', 'idle')},
	'between batches the worker holds no snapshot');
reload_with($node, 'eros.max_snapshot_age' => '10min');

# nor is a handler's call longer than its own time-out, which counts the pauses
$node->safe_psql('postgres', q{
	SELECT eros.add_handler('handler', 'app.handler_1', phase => 1, timeout => '1 s', max_attempts => 1,
		replace => true);
	SELECT eros.retry('handler')});
polls_to($node, 'postgres',
	q{SELECT count(*) > 0 FROM eros.job
	  WHERE status = 'failed' AND last_error = 'handler "handler" was cancelled after 1000 ms'},
	'the time-out cancels a call that pauses');
$node->safe_psql('postgres', q{SELECT eros.retry('handler')});

# a change of the share is in force with the next batch
$node->safe_psql('postgres', q{
	UPDATE eros.phase SET cpu_percent = 95 WHERE phase = 1;
	CREATE FUNCTION app.quick(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
		LANGUAGE sql AS $$ SELECT u, to_jsonb(u) FROM unnest(user_ids) u $$;
	SELECT eros.add_handler('handler', 'app.quick', phase => 1, replace => true);
	SELECT eros.pause()});
polls_to($node, 'postgres', 'SELECT count(*) = 0 FROM eros.status_worker', 'the long call is stopped');
$node->safe_psql('postgres', 'SELECT eros.resume()');
polls_to($node, 'postgres', q{SELECT eros.get('handler', 1000) IS NOT NULL},
	'with a larger share the debt is paid soon');

# small calls now and then, each of which uses its credit: what they have used, they were granted
$node->safe_psql('postgres', 'UPDATE eros.phase SET cpu_percent = 5 WHERE phase = 1');
my $figures = 'SELECT cpu_used_ms, cpu_granted_ms FROM eros.status_phase WHERE phase = 1';
my ($used_before, $granted_before) = split /\|/, value($node, 'postgres', $figures);
for my $user (2001 .. 2030)
{
	$node->safe_psql('postgres', "SELECT eros_touch($user)");
	$node->poll_query_until('postgres', "SELECT eros.get('handler', $user) IS NOT NULL") or BAIL_OUT("user $user gets no result");
}
my ($used, $granted) = split /\|/, value($node, 'postgres', $figures);
cmp_ok($used - $used_before, '<=', 1.2 * ($granted - $granted_before) + 1, 'small calls now and then use no more than they are granted');

done_testing();
