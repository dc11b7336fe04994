//! Raw system calls and every unsafe block of offshoot, in terms of owned and borrowed descriptors.
