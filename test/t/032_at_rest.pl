# With nothing to do EROS costs nothing: no log line, no lock, hardly a wake-up.

use strict;
use warnings;

use ErosTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = eros_node('main', "eros.worker_idle_timeout = 100ms\nautovacuum = off\n");
my $processes = q{SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'eros %' ORDER BY pid};

# How often a process has gone to sleep, and the CPU time that it has used, in ticks.
sub figures
{
	my ($pid) = @_;
	my ($switches) = slurp_file("/proc/$pid/status") =~ /^voluntary_ctxt_switches:\s*(\d+)/m;
	my @fields = split / /, slurp_file("/proc/$pid/stat") =~ s/^.*\) //sr;

	return ($switches, $fields[11] + $fields[12]);
}

# What EROS's processes lock besides their own virtual transactions.
sub locks
{
	return value($node, 'postgres', q{
		SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.backend_type LIKE 'eros %'});
}

plan skip_all => 'no /proc' if !-r "/proc/$$/status";

# one database where nobody has ever been, one with results and active users who do not become idle yet
$node->safe_psql('postgres', 'CREATE DATABASE empty');
create_eros($node, 'empty');
create_eros($node, 'postgres');
soon_idle($node, 'postgres');
gated_handler($node, 'postgres');
$node->safe_psql('postgres', 'SELECT eros_touch(u) FROM generate_series(1, 100) u');
polls_to($node, 'postgres', q{SELECT count(*) FROM eros.get_many('gated', ARRAY(SELECT generate_series(1, 100))::bigint[])},
	'there are results', 100);
$node->safe_psql('postgres', q{UPDATE eros.phase SET idle_after = phase * interval '1 hour'});
polls_to($node, 'postgres', q{SELECT count(*) FROM eros.job}, 'nothing is left to do', 0);
polls_to($node, 'postgres', 'SELECT workers FROM eros.status', 'the worker has ended', 0);
$node->safe_psql('postgres', 'SELECT eros_touch(u) FROM generate_series(1, 100) u');

# at rest when nobody has moved for a while
my ($pids, %before, $log);
for (1 .. 60)
{
	my %now;

	$pids = $node->safe_psql('postgres', $processes);
	%now = map { $_ => join ' ', figures($_) } split /\n/, $pids;
	$node->safe_psql('postgres', 'SELECT pg_sleep(2)');
	# nor is a sample of the history due within the next seconds
	last if time % 60 >= 5 && time % 60 <= 50 && join(',', map { "$_ $now{$_}" } sort keys %now) eq join(',', map { "$_ " . join ' ', figures($_) } sort keys %now);
}
%before = map { $_ => [ figures($_) ] } split /\n/, $pids;
$log = -s $node->logfile;
is(scalar keys %before, 3, 'the launcher and two schedulers are there');
is(locks(), 0, 'they hold no lock');
$node->safe_psql('postgres', 'SELECT pg_sleep(5)'); # not to settle: the time that is measured
for my $pid (sort keys %before)
{
	my ($switches, $ticks) = figures($pid);

	cmp_ok($switches - $before{$pid}[0], '<=', 5, "process $pid has hardly been awake in five seconds");
	cmp_ok($ticks - $before{$pid}[1], '<=', 2, 'and has used no CPU to speak of');
}
is(value($node, 'postgres', $processes), $pids, 'the processes are the same');
is(locks(), 0, 'they hold no lock still');
is(-s $node->logfile, $log, 'the log has not grown');

# and all of that does not mean that they sleep too long
$node->safe_psql('postgres', q{UPDATE eros.phase SET idle_after = idle_after / 36000});
polls_to($node, 'postgres', 'SELECT idle_users FROM eros.status', 'users become idle when the thresholds are changed', 100);
$node->stop;
done_testing();
