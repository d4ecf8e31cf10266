# Half a day of the demo, with the time moved exactly: the scheduler, the workers and the demo's handlers are
# real, and each minute has its sample.  What the first half of it teaches is held against the second.

use strict;
use warnings;

use ErosTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = eros_node('main', "full_page_writes = on\neros.workers = 2\nshared_buffers = 128MB\nautovacuum = off\n"
	. "checkpoint_timeout = 1h\nmax_wal_size = 4GB\n");
my $demo = "$FindBin::RealBin/../../demo";

# Runs one of the demo's files; what it says is of no interest.
sub demo
{
	my ($file, %variables) = @_;

	$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', map({ ('-v', "$_=$variables{$_}") } keys %variables),
			'-d', $node->connstr('postgres'), '-f', "$demo/$file" ], "demo/$file");
	return;
}

demo('seed.sql');
demo('setup.sql', speed => 1);
$node->safe_psql('postgres', q{UPDATE eros.phase SET cpu_percent = 95; SELECT eros.freeze_clock()});
demo('handlers.sql');
demo('day.sql', speed => 1440);
$node->safe_psql(
	'postgres', q{
	-- Plays the moments of some minutes of the day, each when what was to be done before is done.
	CREATE PROCEDURE demo.play_exactly(first integer, last integer) LANGUAGE plpgsql AS $$
	DECLARE
		m record;
		deadline timestamptz;
	BEGIN
		FOR m IN SELECT * FROM demo.moment WHERE ms * 1440.0 / 60000 >= first AND ms * 1440.0 / 60000 < last ORDER BY ms LOOP
			PERFORM eros.advance_clock((SELECT begun_at FROM demo.day) + make_interval(secs => m.ms * 1.44) - eros.now());
			PERFORM eros.sweep();
			COMMIT;
			deadline := clock_timestamp() + interval '3 minutes';
			WHILE EXISTS (SELECT FROM eros.job WHERE status = 'pending') LOOP
				IF clock_timestamp() > deadline THEN
					RAISE EXCEPTION 'jobs are not done at %', m.ms;
				END IF;
				PERFORM pg_sleep(0.001);
			END LOOP;
			PERFORM eros_touch(m.members);
			PERFORM eros.get(h.name, u) FROM eros.handler h, unnest(m.coming) u;
			COMMIT;
		END LOOP;
	END $$;
	INSERT INTO demo.day VALUES (eros.now())});

# autovacuum comes by each minute, and finds as many dead rows as it demands about each ten minutes
for (my $minute = 0; $minute < 720; $minute += 10)
{
	my ($status, undef, $stderr) = $node->psql('postgres', sprintf 'CALL demo.play_exactly(%d, %d)', $minute, $minute + 10);

	$status == 0 or BAIL_OUT($stderr);
	$node->safe_psql('postgres', 'VACUUM eros.activity');
	$node->safe_psql('postgres', 'VACUUM eros.job');
}
is(value($node, 'postgres', 'SELECT sum(jobs_failed) FROM eros.status_handler'), 0, 'half a day is played, no job has failed');

my $cut = value($node, 'postgres', q{SELECT eros.prediction_cut() - begun_at BETWEEN '5.5 hours' AND '6.5 hours' FROM demo.day});
is($cut, 't', 'what was learned is of one half of it');
my %seen;
for my $row (split /\n/, value($node, 'postgres',
	q{SELECT quantity, coalesce(handler, 'phase ' || phase, 'all') AS subject, round(predicted::numeric, 1), round(measured::numeric, 1), error_percent FROM eros.status_prediction}))
{
	my ($quantity, $of, $predicted, $measured, $error) = split /\|/, $row;

	$seen{$quantity}++;
	diag("$quantity of $of: predicted $predicted, measured $measured, $error %");
	# what a call costs is the machine's: by a quarter less at the end of this minute than at its begin, or more
	next if $quantity eq 'cpu';
	cmp_ok(abs($error), '<=', 15, "$quantity of $of: within 15 %");
}
is_deeply(\%seen,
	{ transitions => 2, jobs => 3, cpu => 4, 'shared memory' => 1, 'eros.cache' => 1, 'eros.activity' => 1, wal => 4 },
	'all of it was predicted');
cmp_ok(value($node, 'postgres', q{SELECT pg_total_relation_size('eros.job')}), '<=',
	value($node, 'postgres', q{SELECT value FROM eros.predict(1200, active_users => 0) WHERE quantity = 'eros.job'}), 'eros.job is not larger than what it is at most');


# images of full pages are counted
my $images = q{SELECT sum(wal_fpi) FROM eros.learn_handlers(NULL, NULL)};
my $before = value($node, 'postgres', $images);
$node->safe_psql('postgres', 'CHECKPOINT');
$node->safe_psql('postgres', 'CALL demo.play_exactly(720, 730)');
cmp_ok(value($node, 'postgres', $images), '>', $before, 'after a checkpoint, pages are written whole');

$node->stop;
done_testing();
