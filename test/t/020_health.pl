# eros.problems(): each thing that is wrong has its sentence, and a section in docs/operations.md that explains it.

use strict;
use warnings;

use ErosTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = eros_node('main', "eros.tracker_memory = 16MB\neros.sweep_interval = 100ms\n");

# The problems now, the worst first.
my $keys = q{SELECT string_agg(problem, ' ') FROM eros.problems()};

# A test: a problem comes up.
sub comes
{
	my ($problem, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return polls_to($node, 'postgres', "SELECT count(*) FROM eros.problems() WHERE problem = '$problem'", "$problem: $name", 1);
}

# A test: it goes away.
sub goes
{
	my ($problem, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return polls_to($node, 'postgres', "SELECT count(*) FROM eros.problems() WHERE problem = '$problem'", "$problem: $name", 0);
}

# Moves the time of EROS.
sub advance
{
	my ($step) = @_;

	$node->safe_psql('postgres', "SELECT eros.advance_clock('$step')");
	return;
}

# Two hours after what has happened just now: a sample has it under the minute at whose end it was taken.
sub hours_later
{
	my $now = value($node, 'postgres', 'SELECT eros.now()');

	advance('1 minute');
	$node->poll_query_until('postgres', "SELECT count(*) > 0 FROM eros.history_ring WHERE sampled_at >= '$now'")
	  or die 'no sample of the history';
	advance('2 hours');
	return;
}

create_eros($node, 'postgres');
is(value($node, 'postgres', $keys), '', 'all is well at first');

# every key that the function knows has its section, and no section is left over
my %known = map { $_ => 1 } split /\n/, value($node, 'postgres', q{
	SELECT DISTINCT m[1] FROM pg_proc, regexp_matches(prosrc, 'SELECT \d+, ''(\w+)'', ', 'g') m
	WHERE oid = 'eros.problems'::regproc});
my ($section) = slurp_file("$FindBin::RealBin/../../docs/operations.md") =~ /^## What status says$(.*?)^## /ms;
my %explained = map { lc(s/ /_/gr) => 1 } $section =~ /^### (.+)$/mg;
cmp_ok(scalar(keys %known), '>=', 25, 'the conditions are found in the function');
is_deeply([ sort keys %explained ], [ sort keys %known ], 'each has its section in docs/operations.md');

# handlers
$node->safe_psql(
	'postgres', q{
	CREATE FUNCTION one(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
	LANGUAGE sql AS $$ SELECT u, '1'::jsonb FROM unnest(user_ids) u $$;
	SELECT eros.add_handler('one', 'one', phase => 1, ttl => '1 hour');
	UPDATE eros.phase SET cpu_percent = 95});

# nobody reads
$node->safe_psql('postgres', 'SELECT eros_touch(g) FROM generate_series(1, 1100) g');
advance('15 minutes');
polls_to($node, 'postgres', 'SELECT users_done FROM eros.status_handler', 'users get their results', 1100);
$node->safe_psql('postgres', 'DELETE FROM eros.activity'); # nothing to refresh
advance('3 hours');
comes('results_unread', 'nobody has read a thousand results');
like(value($node, 'postgres', 'SELECT suggestion FROM eros.status_worth'), qr/^move it to phase 2: /, 'and the suggestion fits');

# nobody finds
$node->safe_psql('postgres', q{SELECT count(eros.get('one', g)) FROM generate_series(1, 1100) g});
is(value($node, 'postgres', q{SELECT count(*) FROM eros.problems() WHERE problem = 'hits_rare'}), 0, 'the first day nobody minds');
advance('22 hours');
comes('hits_rare', 'reads find nothing');
goes('maintenance_late', 'and the jump of the time is seen to');
is( value($node, 'postgres', q{SELECT message || ': ' || hint FROM eros.problems() LIMIT 1}),
	value($node, 'postgres', 'SELECT status FROM eros.status'),
	'the status says the first of them');
is( value($node, 'postgres', q{SELECT anchor, count(*) OVER () FROM eros.problems() LIMIT 1}),
	value($node, 'postgres', 'SELECT anchor, problems FROM eros.status'),
	'and where it is explained, and how many there are');
advance('26 hours');
goes('results_unread', 'that was a day ago');
goes('hits_rare', 'that, too');

# jobs wait
$node->safe_psql('postgres', 'SELECT eros.pause(); SELECT eros_touch(1)');
comes('paused', 'by eros.pause()');
advance('15 minutes');
polls_to($node, 'postgres', 'SELECT jobs_pending FROM eros.status', 'there is a job', 1);
my $keeper = $node->background_psql('postgres');
$keeper->query_safe('BEGIN; SELECT FROM eros.job FOR UPDATE');
advance('2 hours');
is(value($node, 'postgres', q{SELECT count(*) FROM eros.problems() WHERE problem = 'queue_late'}), 0, 'that it waits is no news while EROS is paused');
$node->safe_psql('postgres', 'SELECT eros.resume()');
goes('paused', 'by eros.resume()');
comes('queue_late', 'a job that somebody has locked has waited for two hours');
$keeper->query_safe('ROLLBACK');
$keeper->quit;
goes('queue_late', 'it is done');

# a call takes long
reload_with($node, 'eros.max_snapshot_age' => '20s');
sleeping_handler($node, 'postgres');
$node->safe_psql('postgres', 'SELECT eros_touch(2)');
advance('15 minutes');
comes('call_long', 'it has taken more than half of eros.max_snapshot_age');
$node->safe_psql('postgres', q{SELECT eros.drop_handler('sleeps')});
goes('call_long', 'it has ended');

# a handler that cannot be called
$node->safe_psql('postgres', q{ALTER FUNCTION one RENAME TO other; SELECT eros_touch(3)});
advance('15 minutes');
comes('handlers_broken', 'its function is gone');
$node->safe_psql('postgres', q{ALTER FUNCTION other RENAME TO one});
goes('handlers_broken', 'its function is back');

# a handler that fails
$node->safe_psql(
	'postgres', q{
	CREATE FUNCTION fails(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
	LANGUAGE plpgsql AS $$ BEGIN RAISE 'it does not work'; END $$;
	SELECT eros.add_handler('fails', 'fails', phase => 1, max_attempts => 100);
	SELECT eros_touch(5)});
reload_with($node, 'eros.retry_delay' => '50ms');
advance('15 minutes');
comes('handler_failing', 'its calls fail');
$node->safe_psql(
	'postgres', q{
	CREATE OR REPLACE FUNCTION fails(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
	LANGUAGE plpgsql AS $$ BEGIN RETURN QUERY SELECT u, '1'::jsonb FROM unnest(user_ids) u; END $$});
advance('8 minutes');
goes('handler_failing', 'they succeed');
$node->safe_psql('postgres', q{SELECT eros.drop_handler('fails')});

# nothing is done for a handler: the only worker is in a call of another one
reload_with($node, 'eros.max_snapshot_age' => '2h');
$node->safe_psql('postgres', q{SELECT eros.add_handler('sleeps', 'sleeps', phase => 1, timeout => '2 hours'), eros_touch(6)});
advance('15 minutes');
polls_to($node, 'postgres', q{SELECT count(*) FROM eros.status_worker WHERE handler = 'sleeps'}, 'a worker sleeps', 1);
$node->safe_psql('postgres', 'SELECT eros_touch(7)');
advance('15 minutes');
polls_to($node, 'postgres', q{SELECT jobs_pending > 0 FROM eros.status_queue WHERE handler = 'one'}, 'a job waits for it');
polls_to($node, 'postgres', q{SELECT sum(users_done) FROM eros.sample_handlers((SELECT max(sampled_at) FROM eros.history_ring WHERE span_s = 60))},
	'what was done before is in the history', 0);
advance('20 minutes');
polls_to($node, 'postgres', q{SELECT count(*) FROM eros.problems() WHERE problem = 'queue_stalled' AND message LIKE '%"one"%'},
	'queue_stalled: a job has waited for 20 minutes', 1);
reload_with($node, 'eros.enabled' => 'off');
goes('queue_stalled', 'where EROS is switched off, that says it');
reload_with($node, 'eros.enabled' => 'on');
$node->safe_psql('postgres', q{SELECT eros.drop_handler('sleeps')});
goes('queue_stalled', 'it is done');

# no worker
reload_with($node, 'eros.workers' => 0);
comes('no_workers', 'eros.workers is 0');
reload_with($node, 'eros.workers' => 1);
goes('no_workers', 'it is 1');

# metrics
is(value($node, 'postgres', 'SELECT eros.note_scrape() = eros.now()') =~ /^[tf]$/, 1, 'a scrape is noted');
is(value($node, 'postgres', q{SELECT state FROM eros.checklist() WHERE topic = 'monitoring and alerts in place'}), 'ok', 'and seen by the checklist');
advance('16 minutes');
is(value($node, 'postgres', q{SELECT count(*) FROM eros.problems() WHERE problem = 'scrape_stopped'}), 0, 'one look is nobody who has stopped');
is(value($node, 'postgres', q{SELECT state FROM eros.checklist() WHERE topic = 'monitoring and alerts in place'}), 'attention', 'but not enough for the checklist');
for (1 .. 30)
{
	$node->safe_psql('postgres', 'SELECT eros.note_scrape()');
	advance('2 seconds');
}
for (1 .. 3)
{
	advance('10 minutes');
	$node->safe_psql('postgres', 'SELECT eros.note_scrape()');
}
advance('16 minutes');
is(value($node, 'postgres', q{SELECT count(*) FROM eros.problems() WHERE problem = 'scrape_stopped'}), 0, 'nor is a person who watches for a minute');
for (1 .. 8)
{
	$node->safe_psql('postgres', 'SELECT eros.note_scrape()');
	advance('1 minute');
}
advance('16 minutes');
is(value($node, 'postgres', q{SELECT count(*) FROM eros.problems() WHERE problem = 'scrape_stopped'}), 0, 'or looks again and again for some minutes');
for (1 .. 5)
{
	$node->safe_psql('postgres', 'SELECT eros.note_scrape()');
	advance('8 minutes');
}
advance('16 minutes');
comes('scrape_stopped', 'nobody collects them any more');
$node->safe_psql('postgres', 'SELECT eros.note_scrape()');
goes('scrape_stopped', 'somebody does again');
for (1 .. 5)
{
	$node->safe_psql('postgres', 'SELECT eros.note_scrape()');
	advance('8 minutes');
}
advance('1 hour');
comes('scrape_stopped', 'nobody does, once more');
advance('1 day');
goes('scrape_stopped', 'who was wanted no more is forgotten after a day');

# a full cache
reload_with($node, 'eros.cache_limit' => '64kB');
$node->safe_psql('postgres', 'SELECT eros_touch(g) FROM generate_series(1, 1100) g');
advance('15 minutes');
comes('cache_full', 'results are evicted');
reload_with($node, 'eros.cache_limit' => '1GB');
hours_later();
goes('cache_full', 'after an hour without');

# what the history says of the last hour
for my $case (
	[ touches_lost => q{server.touches_lost = 3} ],
	[ users_spilled => q{server.users_spilled = 3} ],
	[ halts_forced => q{server.halts_forced = 1} ],
	[ halts_slow => q{server.halts = 10, server.halts_slow = 1} ],
	[ cpu_over_share => q{phases[1].cpu_used_ms = 20000, phases[3].cpu_granted_ms = 1000000} ],
	[ contended => q{phases[1].cpu_yielded_ms = 600000} ])
{
	my ($problem, $set) = @$case;

	$node->safe_psql('postgres', 'SELECT eros_touch(4)');
	advance('15 minutes');
	polls_to($node, 'postgres', q{SELECT max(sampled_at) > eros.now() - interval '2 minutes' FROM eros.history_ring},
		'there is a sample');
	$node->safe_psql('postgres', qq{UPDATE eros.history_ring SET $set
		WHERE span_s = 60 AND sampled_at = (SELECT max(sampled_at) FROM eros.history_ring WHERE span_s = 60)});
	comes($problem, 'the history of the last hour has it');
	advance('2 hours');
	goes($problem, 'it has it no more');
}

# dead rows
$node->safe_psql('postgres', 'ALTER TABLE eros.job SET (autovacuum_enabled = off)');
$node->safe_psql('postgres', q{BEGIN; INSERT INTO eros.job (user_id, handler_id, phase, due_at)
	SELECT gen_random_uuid(), 0, 1, 'infinity' FROM generate_series(1, 110000); ROLLBACK});
comes('dead_jobs', 'nobody cleans them up');
$node->safe_psql('postgres', 'VACUUM eros.job');
goes('dead_jobs', 'vacuum does');

# who reads the cache keeps its partitions
my $reader = open_session($node, 'postgres');
in_session($reader, 'BEGIN; LOCK TABLE eros.cache IN ACCESS SHARE MODE');
advance('1 day');
comes('purge_blocked', 'expired partitions cannot be dropped');
close_session($reader);
goes('purge_blocked', 'they are dropped');

# the scheduler cannot sweep
my $session = open_session($node, 'postgres');
in_session($session, 'BEGIN; LOCK TABLE eros.activity');
advance('1 day');
comes('sweep_late', 'somebody has locked eros.activity');
comes('maintenance_late', 'and it does not come to maintain');
my $old = value($node, 'postgres', 'SELECT scheduler_pid FROM eros.status');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($old)");
polls_to($node, 'postgres', "SELECT scheduler_pid <> $old FROM eros.status", 'another scheduler runs');
is(value($node, 'postgres', q{SELECT count(*) FROM eros.problems() WHERE problem IN ('sweep_late', 'maintenance_late')}), 0, 'which has its time');
advance('1 day');
comes('sweep_late', 'it has had it');
close_session($session);
goes('sweep_late', 'the lock is gone');
goes('maintenance_late', 'and it maintains');

# a memory that fills
$node->safe_psql('postgres', q{SELECT eros.freeze_clock(); SELECT count(eros_touch(g)) FROM generate_series(1, 350000) g});
comes('tracker_filling', 'it is three quarters full');
advance('15 minutes');
goes('tracker_filling', 'its users are idle');

# EROS off
reload_with($node, 'eros.enabled' => 'off');
comes('switched_off', 'eros.enabled is off');
is(value($node, 'postgres', 'SELECT status FROM eros.status'), 'switched off: set eros.enabled = on, and reload the configuration', 'which the status says');

$node->stop;
done_testing();
