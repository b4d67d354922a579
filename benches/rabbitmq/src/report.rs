//! What is printed of the rounds.

use crate::lap::Lap;

/// The laps of one contender, a round each.
pub struct Laps {
    pub contender: &'static str,
    pub laps: Vec<Lap>,
}

/// Prints every contender, held against the first of them round by round.
pub fn print(all: &[Laps]) {
    let Some(first) = all.first() else { return };
    for Laps { contender, laps } in all {
        let rates: Vec<f64> = laps.iter().map(Lap::rate).collect();
        let ratios: Vec<f64> = laps.iter().zip(&first.laps).map(|(own, first)| own.rate() / first.rate()).collect();
        let cpu: Vec<f64> = laps.iter().map(Lap::cpu_per_million).collect();
        let (rate, ratio, cpu) = (Spread::of(&rates), Spread::of(&ratios), Spread::of(&cpu));
        println!(
            "  {contender:18} msg/s {:>7.0} ({:.0}..{:.0})   ratio {:.2} ({:.2}..{:.2})   CPU s/M {:.1} ({:.1}..{:.1})",
            rate.median, rate.min, rate.max, ratio.median, ratio.min, ratio.max, cpu.median, cpu.min, cpu.max,
        );
        let each: Vec<String> = rates.iter().map(|rate| format!("{rate:.0}")).collect();
        let unsettled = laps.iter().map(|lap| lap.unsettled).max().unwrap_or_default();
        let left = if unsettled > 0 { format!("   left unsettled up to {unsettled}") } else { String::new() };
        println!("  {:18} each  {}{left}", "", each.join(" "));
    }
}

struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Self { min: sorted[0], median: sorted[sorted.len() / 2], max: sorted[sorted.len() - 1] }
    }
}
