# The history: a sample a minute and an hour, over a restart and a crash, of a fixed size.

use strict;
use warnings;

use ErosTest;
use Test::More;

my $node = eros_node('main', "eros.sweep_interval = 100ms\neros.worker_idle_timeout = 1h\n");

# Moves the time of EROS, and waits for the scheduler's sample.
sub advance
{
	my ($step, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $now = value($node, 'postgres', "SELECT eros.advance_clock('$step')");
	return polls_to($node, 'postgres', "SELECT max(sampled_at) = date_trunc('minute', timestamptz '$now') FROM eros.history_server WHERE changed AND span = '1 min'",
		$name // "a sample $step later");
}

# Users idle through phase 1, once.
sub play
{
	my ($users) = @_;

	$node->safe_psql('postgres', "SELECT count(eros_touch(g)) FROM generate_series(1, $users) g");
	advance('11 minutes', "$users users are idle");
	polls_to($node, 'postgres', 'SELECT jobs_pending FROM eros.status', 'and have their results', 0);
	advance('1 minute');
	return;
}

create_eros($node, 'postgres');
$node->safe_psql(
	'postgres', q{
	CREATE FUNCTION one(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
	LANGUAGE sql AS $$ SELECT u, '1'::jsonb FROM unnest(user_ids) u $$;
	SELECT eros.add_handler('one', 'one', phase => 1);
	UPDATE eros.phase SET cpu_percent = 95;
	SELECT eros.freeze_clock()});
polls_to($node, 'postgres', 'SELECT count(*) > 0 FROM eros.history_ring', 'the first sample is of the start');

play(100);
my $counted = q{
	SELECT sum(users_done), sum(results_stored), sum(jobs_added), bool_and(cpu_used_ms >= 0), min(users_done) >= 0
	FROM eros.history_handler WHERE span = '1 min'};
is(value($node, 'postgres', $counted), '100|100|100|t|t', 'what was counted is in it, once');
is(value($node, 'postgres', q{SELECT sum(transitions), max(users) FROM eros.history_phase WHERE phase = 1 AND span = '1 min'}),
	'100|100', 'per phase, too');
is( value($node, 'postgres', q{
		SELECT count(*) = count(DISTINCT sampled_at) AND count(*) = extract(epoch FROM max(sampled_at) - min(sampled_at)) / 60 + 1
		FROM eros.history_server WHERE span = '1 min'}),
	't', 'a row for each minute, also for those in which nothing has changed');
is(value($node, 'postgres', q{SELECT bool_or(transitions > 0) FROM eros.history_phase WHERE NOT changed AND span = '1 min'}),
	'f', 'in which nothing is counted');

# nothing happens: nothing is written, and the scheduler is not woken for it
$node->safe_psql('postgres', q{SELECT eros.advance_clock('2 hours')});
polls_to($node, 'postgres', q{SELECT last_sweep = eros.now() FROM eros.status}, 'the scheduler sees that two hours have passed');
polls_to($node, 'postgres', q{SELECT max(users) FROM eros.history_phase WHERE phase = 3 AND span = '1 min'}, 'and all are in phase 3', 100);
$node->safe_psql('postgres', q{SELECT eros.advance_clock('1 minute')});
polls_to($node, 'postgres', q{SELECT last_sweep = eros.now() FROM eros.status}, 'a round without a change');
my $samples = value($node, 'postgres', 'SELECT count(*), max(xmin::text::bigint) FROM eros.history_ring');
$node->safe_psql('postgres', q{SELECT eros.advance_clock('1 minute')});
polls_to($node, 'postgres', q{SELECT last_sweep = eros.now() FROM eros.status}, 'and another one');
is(value($node, 'postgres', 'SELECT count(*), max(xmin::text::bigint) FROM eros.history_ring'), $samples, 'write no sample');
is(value($node, 'postgres', q{SELECT max(sampled_at) >= eros.now() - interval '1 minute' FROM eros.history_server WHERE span = '1 min'}),
	't', 'and are shown all the same');

# hours
is(value($node, 'postgres', q{SELECT sum(users_done), sum(jobs_added) FROM eros.history_handler WHERE span = '1 hour'}),
	'100|100', 'the hours have the sums');

# a restart
my $before = value($node, 'postgres', 'SELECT sum(users_done) FROM eros.learn_handlers(NULL, NULL)');
$node->restart;
polls_to($node, 'postgres', running(), 'EROS is back');
is(value($node, 'postgres', 'SELECT users_done FROM eros.status_handler'), 0, 'the counters begin anew');
$node->safe_psql('postgres', 'SELECT eros.freeze_clock()');
my $offset = value($node, 'postgres', 'SELECT max(sampled_at) - eros.now() FROM eros.history_ring');
$node->safe_psql('postgres', "SELECT eros.advance_clock('$offset'::interval + interval '10 minutes')");
is(value($node, 'postgres', 'SELECT sum(users_done) FROM eros.learn_handlers(NULL, NULL)'), $before, 'the history does not');
play(50);
is(value($node, 'postgres', $counted), '150|150|150|t|t', 'and goes on, and nothing goes backwards');
is(value($node, 'postgres', 'SELECT sum(users_done) FROM eros.learn_handlers(NULL, NULL)'), $before + 50, 'nothing is counted twice');

# a crash
on_disk($node, 'postgres');
$node->stop('immediate');
$node->start;
polls_to($node, 'postgres', running(), 'EROS is back after a crash');
$node->safe_psql('postgres', 'SELECT eros.freeze_clock()');
$offset = value($node, 'postgres', 'SELECT max(sampled_at) - eros.now() FROM eros.history_ring');
$node->safe_psql('postgres', "SELECT eros.advance_clock('$offset'::interval + interval '10 minutes')");
is(value($node, 'postgres', $counted), '150|150|150|t|t', 'the history is there');

# the time in which the server was down has no rows: the scheduler began to count 90 s before its first sample
my $rows = q{SELECT count(*) FROM eros.history_server WHERE span = '1 min'
	AND sampled_at > eros.now() - interval '9 minutes' AND sampled_at < eros.now() - interval '3 minutes'};
$node->safe_psql('postgres', 'SELECT eros_touch(1)');
advance('11 minutes', 'a sample after minutes in which nothing was to be done');
is(value($node, 'postgres', $rows), 5, 'minutes in which nothing has changed');
$node->safe_psql('postgres', q{UPDATE eros.history_ring SET counted_since = sampled_at - interval '90 s'
	WHERE span_s = 60 AND sampled_at = (SELECT max(sampled_at) FROM eros.history_ring WHERE span_s = 60)});
is(value($node, 'postgres', $rows), 0, 'minutes in which nothing was there to see it');

is(value($node, 'postgres', q{
		SELECT bool_and(p.jobs_failed = h.jobs_failed AND p.batches_failed = h.batches_failed AND p.batches_halted = h.batches_halted
			AND p.hits = h.hits AND p.misses = h.misses AND p.oldest_wait_ms = h.oldest_wait_ms AND p.results_unread = h.results_unread
			AND abs(p.cpu_granted_ms - h.cpu_granted_ms) <= CASE WHEN h.cpu_used_ms > 0 THEN 0.001 ELSE p.cpu_granted_ms END)
		FROM eros.history_phase p JOIN eros.history_handler h USING (span, sampled_at, phase)}),
	't', "a phase with one handler has the handler's figures");

# days of samples of a hundred handlers, each in the transaction that the scheduler would write it in; their
# figures differ from one to the next, as such that compress well would not show how large it becomes
$node->safe_psql(
	'postgres', q{
	CREATE PROCEDURE sample(span integer, slots integer, first integer, last integer) LANGUAGE plpgsql AS $$
	DECLARE
		r eros.history_ring;
	BEGIN
		SELECT * INTO r FROM eros.history_ring WHERE span_s = 60 ORDER BY sampled_at DESC LIMIT 1;
		FOR m IN first .. last LOOP
			INSERT INTO eros.history_ring
			SELECT span, m, r.sampled_at - make_interval(secs => span * (slots - m)), r.sampled_at, r.server, r.phases,
				ARRAY(SELECT ROW(h, 1, v, v, v, v, v, v, v, v, v, v, v, v, v, v, v, v, v, v, v, v, v, v)::eros.sample_of_handler
					FROM generate_series(1, 100) h CROSS JOIN LATERAL (SELECT (random() * 1e12 + h)::bigint AS v) x)
			ON CONFLICT (span_s, slot) DO UPDATE SET sampled_at = EXCLUDED.sampled_at,
				counted_since = EXCLUDED.counted_since, server = EXCLUDED.server, phases = EXCLUDED.phases,
				handlers = EXCLUDED.handlers;
			COMMIT;
		END LOOP;
	END $$;
	ALTER SYSTEM SET autovacuum = off});
$node->reload;

# What all of it takes on disk: the table, its index, and what is out of line.
sub history_bytes
{
	return value($node, 'postgres', q{SELECT pg_total_relation_size('eros.history_ring')});
}

# A day of minutes, vacuumed as often as autovacuum would.
sub sample_day
{
	for my $part (0 .. 4)
	{
		$node->safe_psql('postgres', sprintf 'CALL sample(60, 1440, %d, %d)', 288 * $part, 288 * $part + 287);
		$node->safe_psql('postgres', 'VACUUM eros.history_ring');
	}
	return;
}

$node->safe_psql('postgres', 'CALL sample(3600, 720, 0, 719)');
sample_day() for 1, 2;
my $size = history_bytes();
sample_day() for 1, 2;
is(value($node, 'postgres', q{SELECT count(*) FROM eros.history_ring}), 2160, 'each minute of the day and each hour of thirty days has its row');
cmp_ok(history_bytes(), '<=', $size, 'a full ring does not grow');
cmp_ok($size, '<=', value($node, 'postgres', 'SELECT eros.history_formula(3, 100)'), 'and is not larger than eros.history_formula() says');
note("$size bytes");

$node->stop;
done_testing();
