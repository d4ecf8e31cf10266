# The private messages of an online community, played event by event with the time moved exactly:
# each is a touch by its sender.  Who crosses which threshold is known to the last user.  For some days
# of it the real scheduler and a real worker run, with a handler that recommends members to write to,
# and its recommendations are scored on whom the members then wrote to.

use strict;
use warnings;

use ErosTest;
use IO::Uncompress::Gunzip qw(gunzip $GunzipError);
use PostgreSQL::Test::Utils;
use Test::More;

my $trace = ($ENV{EROS_TRACE_DATA} // '') . '/college-messages.txt.gz';
plan skip_all => 'EROS_TRACE_DATA has no college-messages.txt.gz' unless -r $trace;

# the events during which the engine runs: four busy days
my ($engine_from, $engine_to) = (23_001, 27_000);

my $node = eros_node('main', "eros.enabled = off\neros.max_result_size = 4kB\nautovacuum = off\n");
my $file = PostgreSQL::Test::Utils::tempdir . '/messages';
gunzip $trace => $file or die $GunzipError;

$node->safe_psql('postgres', q{CREATE EXTENSION eros; CREATE SCHEMA app});
$node->safe_psql(
	'postgres', qq{
	CREATE TABLE app.message (
		n serial PRIMARY KEY, sender bigint, recipient bigint, at bigint, away bigint);
	COPY app.message (sender, recipient, at) FROM '$file' (DELIMITER ' ')});
$node->safe_psql(
	'postgres', q{
	-- for how long the sender had been away before each message
	UPDATE app.message m SET away = w.away
	FROM (SELECT n, at - lag(at) OVER (PARTITION BY sender ORDER BY n) AS away FROM app.message) w
	WHERE w.n = m.n;
	CREATE INDEX ON app.message (sender, at) INCLUDE (recipient);
	CREATE INDEX ON app.message (recipient, at) INCLUDE (sender)});
$node->safe_psql('postgres', 'VACUUM FULL ANALYZE app.message');
is(value($node, 'postgres', 'SELECT count(*) FROM app.message'), 59_835, 'the whole trace is there');

$node->safe_psql(
	'postgres', q{
	-- what the members were shown when they came back
	CREATE TABLE app.shown (n integer PRIMARY KEY, member bigint, value jsonb);

	-- EROS's time at the first message
	CREATE TABLE app.base AS SELECT eros.freeze_clock() AS base, (SELECT at FROM app.message WHERE n = 1) AS at;

	-- EROS's time as the trace's
	CREATE FUNCTION app.trace_now() RETURNS bigint LANGUAGE sql STABLE AS $$
		SELECT b.at + extract(epoch FROM eros.now() - b.base)::bigint FROM app.base b $$;

	-- plays some messages; with the engine on, time waits until it has done its work
	CREATE PROCEDURE app.play(first integer, last integer, engine boolean DEFAULT false)
	LANGUAGE plpgsql AS $$
	DECLARE
		m record;
		deadline timestamptz;
	BEGIN
		FOR m IN SELECT * FROM app.message WHERE n BETWEEN first AND last ORDER BY n LOOP
			PERFORM eros.advance_clock(make_interval(secs => m.at - app.trace_now()));
			PERFORM eros.sweep();
			COMMIT;
			IF engine THEN
				deadline := clock_timestamp() + interval '3 minutes';
				WHILE EXISTS (SELECT FROM eros.job WHERE status = 'pending') LOOP
					IF clock_timestamp() > deadline THEN
						RAISE EXCEPTION 'jobs are not done before message %', m.n;
					END IF;
					PERFORM pg_sleep(0.001);
				END LOOP;
				IF m.away >= 1800 THEN
					INSERT INTO app.shown VALUES (m.n, m.sender, eros.get('matches', m.sender));
				END IF;
			END IF;
			PERFORM eros_touch(m.sender);
			COMMIT;
		END LOOP;
	END $$;

	-- Ten members for each user to write to.  "new": to whom he has not written yet: who wrote to him,
	-- and whom those write to with whom he has to do, the latest first.  "any": those with whom he has to do.
	CREATE FUNCTION app.matches(user_ids bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
	LANGUAGE sql STABLE AS $$
		SELECT me.id, jsonb_build_object('at', t.now, 'any', a.members, 'new', n.members)
		FROM unnest(user_ids) AS me (id)
		CROSS JOIN (SELECT app.trace_now() AS now) t
		CROSS JOIN LATERAL (
			SELECT array_agg(c.id ORDER BY c.points DESC, c.id) AS members
			FROM (
				SELECT c.id, sum(c.points) AS points
				FROM (
					SELECT recipient, exp((at - t.now) / 259200.0)
					FROM app.message WHERE sender = me.id AND at < t.now
					UNION ALL
					SELECT sender, 1.5 * exp((at - t.now) / 259200.0)
					FROM app.message WHERE recipient = me.id AND at < t.now) AS c (id, points)
				GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10) AS c) AS a
		CROSS JOIN LATERAL (
			SELECT array_agg(c.id ORDER BY c.points DESC, c.id) AS members
			FROM (
				SELECT c.id, sum(c.points) AS points
				FROM (
					SELECT sender, 10 * exp((at - t.now) / 259200.0)
					FROM app.message WHERE recipient = me.id AND at < t.now
					UNION ALL
					SELECT theirs.recipient, exp((theirs.at - t.now) / 259200.0)
					FROM (SELECT id, max(at) AS at FROM (
							SELECT recipient, at FROM app.message WHERE sender = me.id AND at < t.now
							UNION ALL
							SELECT sender, at FROM app.message WHERE recipient = me.id AND at < t.now) AS c (id, at)
						GROUP BY 1 ORDER BY 2 DESC LIMIT 30) AS friend
					CROSS JOIN LATERAL (
						SELECT recipient, at FROM app.message WHERE sender = friend.id AND at < t.now
						ORDER BY at DESC LIMIT 30) AS theirs) AS c (id, points)
				WHERE c.id <> me.id
				  AND NOT EXISTS (SELECT FROM app.message m WHERE m.sender = me.id AND m.recipient = c.id AND m.at < t.now)
				GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10) AS c) AS n
	$$});

# Plays some of the trace.
sub play
{
	my ($first, $last, $engine) = @_;

	my ($status, $stdout, $stderr) =
	  $node->psql('postgres', sprintf 'CALL app.play(%d, %d, %s)', $first, $last, $engine ? 'true' : 'false');
	is($status, 0, "messages $first to $last are played" . ($engine ? ', with the engine on' : ''))
	  or BAIL_OUT($stderr);
	return;
}

# A test: what was predicted is within 15 % of what was measured.
sub within
{
	my ($what, $predicted, $measured) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	diag(sprintf '%s: predicted %.2f, measured %.2f, %+.1f %%', $what, $predicted, $measured,
		100 * ($predicted / $measured - 1));
	ok(abs($predicted - $measured) <= 0.15 * $measured, "$what: predicted within 15 %");
	return;
}

play(1, $engine_from - 1);
$node->safe_psql('postgres', 'VACUUM FULL eros.activity'); # months in a minute leave it larger than it would be
$node->safe_psql('postgres',
	q{SELECT eros.add_handler('matches', 'app.matches', phase => 2, ttl => '7 days');
	UPDATE eros.phase SET cpu_percent = 95 WHERE phase = 2});
reload_with($node, 'eros.enabled' => 'on');
polls_to($node, 'postgres',
	'SELECT users_done >= (SELECT sum(users) FROM eros.status_phase WHERE phase >= 2) FROM eros.status_handler',
	'who was away already when the handler was added gets a result, too');

# Who had been away already was done at once, in larger batches, which cost less a user: that teaches nothing.
my $late = value($node, 'postgres', q{SELECT eros.advance_clock('1 minute')});
polls_to($node, 'postgres', "SELECT max(sampled_at) = date_trunc('minute', timestamptz '$late') FROM eros.history_ring WHERE span_s = 60", 'it is in the history');
$node->safe_psql('postgres', 'DELETE FROM eros.history_ring');

# autovacuum comes by each minute, and finds as many dead rows as it demands about each 25 messages
for (my $from = $engine_from; $from < $engine_to; $from += 25)
{
	my ($status, undef, $stderr) = $node->psql('postgres', sprintf 'CALL app.play(%d, %d, true)', $from, $from + 24);

	$status == 0 or BAIL_OUT($stderr);
	$node->safe_psql('postgres', 'VACUUM eros.activity');
	$node->safe_psql('postgres', 'VACUUM eros.job');
}
is(value($node, 'postgres', "SELECT app.trace_now() - at FROM app.message WHERE n = $engine_to"),
	0, "messages $engine_from to $engine_to are played, with the engine on");

# what the days before teach is held against the last one
my %seen;
for my $row (split /\n/, value($node, 'postgres',
	q{SELECT quantity, concat_ws(' of ', quantity, coalesce(handler, 'phase ' || phase)), predicted, measured FROM eros.status_prediction}))
{
	my ($quantity, $name, $predicted, $measured) = split /\|/, $row;

	$seen{$quantity}++;
	if ($quantity eq 'cpu')
	{
		# what a call costs is the machine's, too
		diag(sprintf '%s: predicted %.2f, measured %.2f, %+.1f %%', $name, $predicted, $measured,
			100 * ($predicted / $measured - 1));
		next;
	}
	within($name, $predicted, $measured);
}
is_deeply(\%seen,
	{ transitions => 2, jobs => 1, cpu => 1, 'shared memory' => 1, 'eros.cache' => 1, 'eros.activity' => 1, wal => 2 },
	'all of it was predicted');
reload_with($node, 'eros.enabled' => 'off');
polls_to($node, 'postgres', 'SELECT count(*) = 0 FROM eros.status_worker', 'the worker ends when EROS is switched off');
is(value($node, 'postgres', 'SELECT jobs_failed FROM eros.status_handler'), 0, 'no job has failed');
note('the handler: '
	  . value($node, 'postgres',
		q{SELECT format('%s users done in %s batches, %s ms of CPU a user', users_done, batches, round((cpu_used_ms / users_done)::numeric, 2))
		FROM eros.status_handler}));
$node->safe_psql('postgres', q{SELECT eros.disable_handler('matches')});
play($engine_to + 1, 59_835);
is( value($node, 'postgres', 'SELECT app.trace_now() - max(at) FROM app.message'),
	0, "EROS's time has followed the trace's to the second");

# everybody's last crossings
$node->safe_psql('postgres', q{SELECT eros.advance_clock('1 hour')});
$node->safe_psql('postgres', 'SELECT eros.sweep()');

# crossings
my %crossings = (1 => 30_400, 2 => 25_246, 3 => 22_973);
for my $phase (sort keys %crossings)
{
	is(value($node, 'postgres', "SELECT transitions FROM eros.status_phase WHERE phase = $phase"),
		$crossings{$phase}, "exactly $crossings{$phase} crossings into phase $phase");
}
is( value($node, 'postgres', q{
		SELECT count(*) FILTER (WHERE away >= 600 OR away IS NULL) || ' ' ||
			count(*) FILTER (WHERE away >= 1800 OR away IS NULL) || ' ' ||
			count(*) FILTER (WHERE away >= 3600 OR away IS NULL)
		FROM app.message}),
	join(' ', map { $crossings{$_} } sort keys %crossings),
	'as many as the trace has absences of 10, 30 and 60 minutes, the one after each last message included');
is(value($node, 'postgres', 'SELECT active_users FROM eros.status'), 0, 'in the end nobody is active');
is(value($node, 'postgres', 'SELECT idle_users FROM eros.status'), 1350, 'all 1,350 senders are idle');
is(value($node, 'postgres', 'SELECT users FROM eros.status_phase WHERE phase = 3'), 1350, 'in phase 3');
$node->safe_psql('postgres', 'VACUUM FULL eros.activity');
within('eros.activity, without dead rows', split /\|/, value($node, 'postgres',
	q{SELECT eros.activity_formula(1350, fill_percent => 90), pg_total_relation_size('eros.activity')}));
is( value($node, 'postgres', q{
		SELECT count(*) FROM eros.activity a
		JOIN (SELECT sender, max(at) AS at FROM app.message GROUP BY 1) m ON a.user_id = eros.user_key(m.sender)
		CROSS JOIN app.base b
		WHERE a.last_seen = b.base + make_interval(secs => m.at - b.at)}),
	1350, 'each since his last message');

# recommendations: computed while the member was away, at the moment when he entered phase 2
is(value($node, 'postgres', 'SELECT count(*) FROM app.shown WHERE value IS NULL'),
	0, 'whoever came back after half an hour found his result');
is( value($node, 'postgres', q{
		SELECT count(*) FROM app.shown s JOIN app.message m USING (n)
		WHERE (s.value ->> 'at')::bigint NOT BETWEEN m.at - m.away + 1800 AND m.at}),
	0, 'and it was computed during his absence');

# the messages, and those of each member, by their numbers
my @messages = map { [split] } split /\n/, slurp_file($file);
my %messages_of;
push @{ $messages_of{ $messages[$_][0] } }, $_ for 0 .. $#messages;

# The members to whom somebody wrote from message n on, until he went away.
sub recipients_of_session
{
	my ($n) = @_;
	my ($member, undef, $last) = @{ $messages[$n] };
	my %recipients;

	for my $message (map { $messages[$_] } grep { $_ >= $n } @{ $messages_of{$member} })
	{
		last if $message->[2] - $last >= 1800;
		$last = $message->[2];
		$recipients{ $message->[1] } = 1;
	}
	return keys %recipients;
}

# The first ten members of a list who are not excluded.
sub ten
{
	my ($excluded, @members) = @_;
	my @ten = grep { !$excluded->{$_} } @members;

	return @ten[ 0 .. ($#ten < 9 ? $#ten : 9) ];
}

# What is known at a time: who has written to whom, and who has got how many messages.
my (%written, %received, %known);
my $seen = 0;

sub learn_before
{
	my ($at) = @_;

	for (; $messages[$seen][2] < $at; $seen++)
	{
		my ($sender, $recipient) = @{ $messages[$seen] };

		$written{$sender}{$recipient} = 1;
		$received{$recipient}++;
		$known{$_} = 1 for $sender, $recipient;
	}
	return;
}

# Whether one of the ten is among those to whom he then wrote; and the same of two baselines, which know
# what the handler knew.
my (%sessions, %hits);
srand 42;
for my $row (split /\n/, value($node, 'postgres', q{
		SELECT n, member, value ->> 'at', translate(value ->> 'new', '[] ', ''), translate(value ->> 'any', '[] ', '')
		FROM app.shown WHERE value IS NOT NULL ORDER BY (value ->> 'at')::bigint, n}))
{
	my ($n, $member, $at, %ten);
	($n, $member, $at, $ten{new}, $ten{any}) = split /\|/, $row, -1;
	learn_before($at);
	my @recipients = recipients_of_session($n - 1);
	my @popular = sort { $received{$b} <=> $received{$a} || $a <=> $b } keys %received;
	my @random = map { $_->[1] } sort { $a->[0] <=> $b->[0] } map { [ rand, $_ ] } sort keys %known;

	for my $kind ('new', 'any')
	{
		my %excluded = ($member => 1, $kind eq 'new' ? %{ $written{$member} // {} } : ());
		my %right = map { $_ => 1 } grep { !$excluded{$_} } @recipients;
		my %proposed = (
			handler => [ split /,/, $ten{$kind} =~ s/null//r ],
			popular => [ ten(\%excluded, @popular) ],
			random => [ ten(\%excluded, @random) ]);

		next unless %right;
		$sessions{$kind}++;
		for my $who (keys %proposed)
		{
			$hits{$kind}{$who} += (grep { $right{$_} } @{ $proposed{$who} }) ? 1 : 0;
		}
	}
}
for my $kind ('new', 'any')
{
	my %percent = map { $_ => 100 * $hits{$kind}{$_} / $sessions{$kind} } keys %{ $hits{$kind} };

	diag(
		sprintf 'among ten recommended is one to whom the member then wrote (%s, %d sessions): '
		  . 'handler %.1f %%, most popular %.1f %%, random %.1f %%',
		$kind eq 'new' ? 'for the first time' : 'at all',
		$sessions{$kind}, @percent{qw(handler popular random)});
	cmp_ok($sessions{$kind}, '>', 300, "there are sessions enough to tell ($kind)");
	cmp_ok($percent{handler}, '>', 2 * $percent{random}, "the handler beats random ($kind)");
	cmp_ok($percent{handler}, '>', $percent{popular}, "and the most popular ($kind)");
}

$node->stop;
done_testing();
