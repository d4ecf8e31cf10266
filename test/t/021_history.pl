# The history: a sample a minute and an hour, over a restart and a crash, of a fixed size.

use strict;
use warnings;

use ErosTest;
use Test::More;

my $node = eros_node('main', "eros.sweep_interval = 100ms\n");

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
my $before = value($node, 'postgres', 'SELECT sum(users_done) FROM eros.learned_handler');
$node->restart;
polls_to($node, 'postgres', running(), 'EROS is back');
is(value($node, 'postgres', 'SELECT users_done FROM eros.status_handler'), 0, 'the counters begin anew');
$node->safe_psql('postgres', 'SELECT eros.freeze_clock()');
my $offset = value($node, 'postgres', 'SELECT max(sampled_at) - eros.now() FROM eros.history_ring');
$node->safe_psql('postgres', "SELECT eros.advance_clock('$offset'::interval + interval '10 minutes')");
is(value($node, 'postgres', 'SELECT sum(users_done) FROM eros.learned_handler'), $before, 'the history does not');
play(50);
is(value($node, 'postgres', $counted), '150|150|150|t|t', 'and goes on, and nothing goes backwards');
is(value($node, 'postgres', 'SELECT sum(users_done) FROM eros.learned_handler'), $before + 50, 'nothing is counted twice');

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

# days of samples, each in the transaction that the scheduler would write it in
$node->safe_psql(
	'postgres', q{
	CREATE PROCEDURE sample(days integer) LANGUAGE plpgsql AS $$
	BEGIN
		FOR m IN 0 .. 1440 * days - 1 LOOP
			INSERT INTO eros.history_ring
			SELECT 60, m % 1440, eros.now(), eros.now(), r.server, r.phases, r.handlers
			FROM (SELECT * FROM eros.history_ring WHERE span_s = 60 ORDER BY sampled_at DESC LIMIT 1) r
			ON CONFLICT (span_s, slot) DO UPDATE SET sampled_at = EXCLUDED.sampled_at,
				counted_since = EXCLUDED.counted_since, server = EXCLUDED.server, phases = EXCLUDED.phases,
				handlers = EXCLUDED.handlers;
			COMMIT;
		END LOOP;
	END $$;
	CALL sample(2)});
my $size = value($node, 'postgres', q{SELECT pg_relation_size('eros.history_ring')});
$node->safe_psql('postgres', 'CALL sample(3)');
is(value($node, 'postgres', q{SELECT count(*) FROM eros.history_ring WHERE span_s = 60}), 1440, 'each minute of the day has its row');
cmp_ok(value($node, 'postgres', q{SELECT pg_relation_size('eros.history_ring')}), '<=', $size, 'a full ring does not grow');
cmp_ok($size, '<', 4_000_000, 'and is small');
note("$size bytes");

$node->stop;
done_testing();
