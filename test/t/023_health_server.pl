# eros.problems() of a server whose limits are too low, whose processes end or do not start, or which has
# an interrupted DROP DATABASE.

use strict;
use warnings;

use ErosTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = eros_node('main', "eros.max_databases = 1\neros.max_handlers = 1\neros.sweep_interval = 100ms\nmax_prepared_transactions = 1\n");

# A query that counts a problem.
sub counted
{
	my ($problem) = @_;

	return "SELECT count(*) FROM eros.problems() WHERE problem = '$problem'";
}

# A test: a problem comes up in a database.
sub comes
{
	my ($problem, $name, $db) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return polls_to($node, $db // 'postgres', counted($problem), "$problem: $name", 1);
}

# A test: it goes away.
sub goes
{
	my ($problem, $name, $db) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return polls_to($node, $db // 'postgres', counted($problem), "$problem: $name", 0);
}

# A test: a session comes to see as many of a problem.
sub session_sees
{
	my ($session, $problem, $count, $name) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	my $seen;

	do
	{
		$seen = in_session($session, counted($problem));
		chomp $seen;
	} while ($seen ne $count && time < $deadline);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is($seen, $count, "$problem: $name");
}

create_eros($node, 'postgres');
soon_idle($node, 'postgres', 1);
is(value($node, 'postgres', q{SELECT string_agg(problem, ' ') FROM eros.problems()}), '', 'all is well at first');

# the scheduler has ended, and the launcher does not come to start it
my $launcher = value($node, 'postgres', 'SELECT launcher_pid FROM eros.status');
kill STOP => $launcher;
$node->safe_psql('postgres', 'SELECT pg_terminate_backend(scheduler_pid) FROM eros.status');
comes('scheduler_down', 'it was terminated');
kill CONT => $launcher;
goes('scheduler_down', 'the launcher has started it');
polls_to($node, 'postgres', running(), 'it runs');

# it cannot connect; a session that is there sees why
my $session = open_session($node, 'postgres');
my $file = $node->data_dir . '/base/' . value($node, 'postgres', q{SELECT oid FROM pg_database WHERE datname = 'postgres'}) . '/PG_VERSION';
in_session($session, 'SELECT * FROM eros.problems()');
rename $file, "$file.away" or die $!;
in_session($session, 'SELECT pg_terminate_backend(scheduler_pid) FROM eros.status');
session_sees($session, 'scheduler_does_not_start', 1, 'it cannot connect to the database');
session_sees($session, 'scheduler_down', 0, 'which says more than that it does not run');
rename "$file.away", $file or die $!;
session_sees($session, 'scheduler_does_not_start', 0, 'it can');
close_session($session);
polls_to($node, 'postgres', running(), 'and runs');

# more databases than there is room for
$node->safe_psql('postgres', 'CREATE DATABASE two');
$node->psql('two', 'CREATE EXTENSION eros');
comes('no_room', 'a second database', 'two');
$node->safe_psql('postgres', 'DROP EXTENSION eros');
goes('no_room', 'the first has made room', 'two');
$node->safe_psql('two', 'DROP EXTENSION eros');
create_eros($node, 'postgres');
soon_idle($node, 'postgres', 1);

# an interrupted DROP DATABASE
$node->safe_psql('postgres', q{UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'two'});
comes('database_left', 'two');
$node->safe_psql('postgres', 'DROP DATABASE two');
goes('database_left', 'it is dropped');

# workers end in the calls of a handler
$node->safe_psql(
	'postgres', q{
	CREATE FUNCTION ends(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
	LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(60); END $$;
	SELECT eros.add_handler('ends', 'ends', phase => 1);
	SELECT eros_touch(1)});
comes('handler_suspended', 'its calls end with the worker');
polls_to($node, 'postgres', q{SELECT suspended_until BETWEEN clock_timestamp() AND clock_timestamp() + interval '1 hour 1 minute' FROM eros.status_handler},
	'until a moment that is near');
$node->safe_psql(
	'postgres', q{
	CREATE OR REPLACE FUNCTION ends(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
	LANGUAGE plpgsql AS $$ BEGIN RETURN QUERY SELECT u, '1'::jsonb FROM unnest(user_ids) u; END $$});
polls_to($node, 'postgres', q{SELECT eros.get('ends', 1)}, 'it is called again', 1);
goes('handler_suspended', 'and its call has succeeded');

# more handlers than there is room for the figures of
$node->safe_psql('postgres', q{SELECT eros.add_handler('more', 'ends', phase => 2)});
comes('handlers_uncounted', 'a second handler');

# what those share who have no room is nobody's figure: neither in the history and the metrics, nor judged
$node->safe_psql('postgres', q{SELECT eros.add_handler('much', 'ends', phase => 1), eros_touch(1)});
polls_to($node, 'postgres', q{SELECT eros.get('much', 1)}, 'one without room works', 1);
is(value($node, 'postgres', q{SELECT string_agg(handler || ' ' || counted || ' ' || users_done || ' ' || hits, ', ' ORDER BY handler) FROM eros.status_handler
	WHERE NOT counted}), 'more false 0 0, much false 0 0', 'its figures are not those that it shares');
is(value($node, 'postgres', q{SELECT count(*) FROM eros.sample_handlers(NULL)}), 1, 'the history has the one that is counted');
is(value($node, 'postgres', q{SELECT string_agg(DISTINCT labels ->> 'handler', ' ') FROM eros.metrics WHERE name = 'eros_handler_jobs_done_total'}),
	'ends', 'the metrics have its counters');
is(value($node, 'postgres', q{SELECT count(*) FROM eros.metrics WHERE name = 'eros_handler_enabled'}), 3, 'and of all that they are there');
sleeping_handler($node, 'postgres');
$node->safe_psql('postgres', q{SELECT eros.drop_handler('sleeps');
	SELECT eros.add_handler(h, 'sleeps', phase => 1, timeout => '2 hours', replace => true) FROM unnest('{ends,much}'::text[]) h;
	SELECT eros_touch(2), eros.advance_clock('15 minutes')});
polls_to($node, 'postgres', 'SELECT count(*) FROM eros.status_worker WHERE batch_age IS NOT NULL', 'a worker sleeps', 1);
polls_to($node, 'postgres', 'SELECT count(*) FROM eros.status_queue WHERE oldest_wait IS NOT NULL', 'two handlers have jobs', 2);
polls_to($node, 'postgres', q{SELECT sum(users_done) FROM eros.sample_handlers((SELECT max(sampled_at) FROM eros.history_ring WHERE span_s = 60))},
	'what was done before is in the history', 0);
$node->safe_psql('postgres', q{SELECT eros.advance_clock('20 minutes')});
polls_to($node, 'postgres', q{SELECT string_agg(substring(message, '"(.*?)"'), ' ') FROM eros.problems() WHERE problem = 'queue_stalled'},
	'queue_stalled: the one that is counted has waited, of the other nobody knows', 'ends');
$node->safe_psql('postgres', q{SELECT eros.drop_handler('much'), eros.drop_handler('ends')});
$node->safe_psql('postgres', q{SELECT eros.drop_handler('more')});
goes('handlers_uncounted', 'it is dropped');

# errors that come again
$node->safe_psql('postgres', 'ALTER TABLE eros.activity RENAME TO away');
comes('errors', 'each round of the scheduler ends with one');
comes('scheduler_fails', 'so it fails');
like(value($node, 'postgres', 'SELECT status FROM eros.status'), qr/^the scheduler of this database fails/, 'as the status says');
cmp_ok(value($node, 'postgres', 'SELECT count(*) FROM eros.metrics'), '>', 50, 'the metrics can be read');
$node->safe_psql('postgres', 'ALTER TABLE eros.job RENAME TO work');
is(value($node, 'postgres', q{SELECT count(*) > 50 FROM eros.metrics}), 't', 'even without eros.job');
comes('scheduler_fails', 'of which the status still tells');
$node->safe_psql('postgres', 'ALTER TABLE eros.work RENAME TO job');
$node->safe_psql('postgres', 'ALTER TABLE eros.away RENAME TO activity');
goes('scheduler_fails', 'its rounds succeed');
is(value($node, 'postgres', counted('errors')), 1, 'errors: they are not forgotten at once');
$node->safe_psql('postgres', q{SELECT eros.advance_clock('2 hours')});
goes('errors', 'but after an hour');

# no sweep at all since the start
$node->safe_psql('postgres', q{BEGIN; LOCK TABLE eros.activity; PREPARE TRANSACTION 'locked'});
$node->restart;
polls_to($node, 'postgres', started(), 'the scheduler is there');
$node->safe_psql('postgres', q{SELECT eros.advance_clock('1 day')});
is(value($node, 'postgres', 'SELECT last_sweep FROM eros.status'), '', 'it has not swept yet');
comes('sweep_late', 'nor has it in a day');
comes('maintenance_late', 'nor maintained');
is( value($node, 'postgres', q{BEGIN; UPDATE pg_extension SET extversion = '99.0' WHERE extname = 'eros';
		SELECT string_agg(problem, ' ') FROM eros.problems() WHERE problem IN ('parked', 'sweep_late', 'maintenance_late'); ROLLBACK}),
	'parked', 'parked: then nothing is late');
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'locked'});
goes('sweep_late', 'the lock is gone');
goes('maintenance_late', 'it maintains');

$node->stop;
done_testing();
