//! The ACPI power button: a clean shutdown when somebody presses it.

use std::fs::File;
use std::io::Read;
use std::thread;

const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;
/// `struct input_event` on 64-bit Linux: two longs, type, code, value.
const EVENT_BYTES: usize = 24;

pub(crate) fn watch_button() {
    for n in 0..4 {
        if let Ok(device) = File::open(format!("/dev/input/event{n}")) {
            thread::spawn(move || wait_for_press(device));
        }
    }
}

fn wait_for_press(mut device: File) {
    let mut event = [0; EVENT_BYTES];
    while device.read_exact(&mut event).is_ok() {
        let kind = u16::from_le_bytes([event[16], event[17]]);
        let code = u16::from_le_bytes([event[18], event[19]]);
        let pressed = event[20] == 1;
        if kind == EV_KEY && code == KEY_POWER && pressed {
            // SAFETY: both calls take no memory of ours; the machine goes off.
            unsafe {
                libc::sync();
                libc::reboot(libc::RB_POWER_OFF);
            }
        }
    }
}
