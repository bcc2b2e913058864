; Draws for ever, and tells at port E9h the TSC ticks of each batch of frames, in hexadecimal.
; TEXT: scrolls 80x25 text. PIXELS: redraws 640x480 in true colour. PLAIN: does so in plain memory.
        bits 16
        org 0x7C00
        jmp 0:start
start:  xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7C00
        cld
        mov dword [target], 0x400000
%ifdef TEXT
        mov ax, 0x0003
        int 0x10
%ifndef PLAIN
        mov dword [target], 0xB8000
%endif
%else
        mov ax, 0x4F01
        mov cx, 0x4142
        mov di, 0x8000
        int 0x10
        mov ax, 0x4F02
        mov bx, 0x4142
        int 0x10
%ifndef PLAIN
        mov eax, [0x8028]
        mov [target], eax
%endif
%endif
        cli
        lgdt [gdtr]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp 8:flat
        bits 32
flat:   mov ax, 16
        mov ds, ax
        mov es, ax
        mov ss, ax
        xor ebx, ebx
batch:  rdtsc
        mov ebp, eax
        mov edx, FRAMES
frame:  mov edi, [target]
%ifdef TEXT
        lea esi, [edi+160]
        mov ecx, 960
        rep movsd
        inc ebx
        mov eax, ebx
        and eax, 0x0F0F0F0F
        or eax, 0x07410741
        mov ecx, 40
        rep stosd
%else
        inc ebx
        mov eax, ebx
        shl eax, 3
        mov ecx, 640*480
        rep stosd
%endif
        dec edx
        jnz frame
        rdtsc
        sub eax, ebp
        mov ecx, 8
digit:  rol eax, 4
        push eax
        and al, 15
        cmp al, 10
        sbb al, 0x69
        das
        out 0xE9, al
        pop eax
        loop digit
        mov al, 10
        out 0xE9, al
        jmp batch
        align 8
gdt:    dq 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF
gdtr:   dw 23
        dd gdt
target: dd 0
        times 510-($-$$) db 0
        dw 0xAA55
